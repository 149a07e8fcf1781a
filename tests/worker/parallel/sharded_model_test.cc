// SPDX-License-Identifier: Apache-2.0
// Families and whole trainings are compared between worlds in tests/parity/test_worlds.py.
#include "worker/parallel/sharded_model.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/worker/parallel/gang.h"
#include "worker/model/gradient.h"
#include "worker/model/transformer.h"
#include "worker/parallel/gather_master.h"
#include "worker/train/adamw.h"
#include "worker/train/train_step.h"

namespace temper {
namespace {

ModelConfig SmallConfig(bool tied = false) {
  ModelConfig config;
  config.hidden_size = 16;
  config.num_layers = 3;
  config.vocab_size = 70;
  config.tied_head = tied;
  config.attention = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 8, .scale = 0.35, .qkv_bias = true};
  config.feed_forward.intermediate_size = 24;
  return config;
}

ModelConfig MoeModel() {
  ModelConfig config = SmallConfig();
  config.moe = {.num_experts = 4, .top_k = 2, .intermediate_size = 8, .balance_coefficient = 0.1};
  config.layers = {{.experts = true}, {}, {.experts = true}};
  return config;
}

// A model and what of it is trained.
struct Variant {
  std::string name;
  ModelConfig config = SmallConfig();
  TransformerOptions options;
  bool embedding_frozen = false;
  std::vector<RowRange> frozen_rows;  // of the first block's q, k and v
  std::vector<Recompute> recompute;   // block by block; empty: nothing
};

std::vector<Variant> Variants() {
  const LoraConfig upper = {.rank = 2, .sites = {{"layers.1.attn.q"}, {"layers.2.mlp.down"}}};
  const LoraConfig outer = {.rank = 2, .sites = {{"embed"}, {"layers.1.attn.q"}, {"lm_head"}}};
  return {
      {.name = "Untied"},
      {.name = "Tied", .config = SmallConfig(/*tied=*/true)},
      {.name = "Experts", .config = MoeModel()},
      {.name = "LoraInUpperBlocks", .options = {.lora = upper}},
      {.name = "LoraOnEmbeddingAndHead", .options = {.lora = outer}},
      {.name = "EmbeddingFrozen", .embedding_frozen = true},
      {.name = "SomeRowsFrozen", .frozen_rows = {{4, 9}, {20, 3}}},
      {.name = "Bf16", .options = {.dtype = at::kBFloat16}},
      {.name = "Recomputed", .recompute = {Recompute::kBlock, Recompute::kAttention, Recompute::kNone}},
      {.name = "ExpertsRecomputed",
       .config = MoeModel(),
       .recompute = {Recompute::kBlock, Recompute::kBlock, Recompute::kAttention}},
  };
}

// Values for a model's weights: the same for every model of a variant.
void Fill(const Transformer& model) {
  at::Generator generator = at::detail::createCPUGenerator(3);
  for (const WeightView& view : model.views()) StoreMaster(view, at::randn(view.shape(), generator) * 0.3);
  for (const LoraAdapter* adapter : model.adapters()) {
    const WeightView b = {"", const_cast<Parameter*>(&adapter->b_OR), 0, adapter->rows};
    StoreMaster(b, at::randn(b.shape(), generator) * 0.1);
  }
}

// On the device meta, it is made without values.
std::unique_ptr<Transformer> MakeModel(const Variant& variant, at::Device device = at::kCPU) {
  TransformerOptions options = variant.options;
  options.device = device;
  auto model = std::make_unique<Transformer>(variant.config, options);
  if (!device.is_meta()) Fill(*model);
  if (!variant.recompute.empty()) model->SetRecompute(variant.recompute);
  if (variant.embedding_frozen) {
    model->parameters()[0]->trainable = false;
    model->parameters()[0]->weight.requires_grad_(false);
  }
  if (!variant.frozen_rows.empty()) {
    for (Parameter* parameter : model->unit_parameters(0)) {
      if (parameter->name == "layers.0.attn.qkv.weight") parameter->frozen_rows = variant.frozen_rows;
    }
  }
  return model;
}

MicroBatch Document(int64_t seed, int64_t tokens, bool scored = true) {
  MicroBatch batch;
  for (int64_t i = 0; i < tokens; ++i) {
    batch.tokens_T.push_back((7 * seed + 11 * i + i * i) % 70);
    batch.targets_T.push_back((7 * seed + 11 * (i + 1) + (i + 1) * (i + 1)) % 70);
    batch.positions_T.push_back(i);
    batch.loss_mask_T.push_back(scored && i + 1 < tokens);
  }
  batch.document_starts = {0, tokens};
  batch.capacity = tokens;
  return batch;
}

// Five rows: no world from 2 to 4 divides them. One of them has nothing to learn from.
std::vector<MicroBatch> Rows(int64_t step) {
  return {Document(step, 9), Document(step + 1, 4), Document(step + 2, 6, /*scored=*/false), Document(step + 3, 7),
          Document(step + 4, 5)};
}

constexpr double kScored = 8 + 3 + 6 + 4;
constexpr double kMaxNorm = 0.5;

// What a training came to: by name, the gradient of the first step and the weights after three; and all losses.
struct Outcome {
  std::vector<double> losses;
  std::map<std::string, at::Tensor> gradients, weights;
};

struct Run {
  int world = 1;
  bool reshard = true;
  bool reduce_once = false;
};

// Fills the rank's part of a whole parameter in.
void Collect(const std::vector<ShardSlice*>& slices, const std::function<at::Tensor(const ShardSlice&)>& values,
             std::map<std::string, at::Tensor>& wholes) {
  for (const ShardSlice* slice : slices) {
    at::Tensor& whole = wholes[slice->whole->name];
    if (!whole.defined()) whole = at::zeros(slice->whole->weight.sizes());
    whole.view(-1).narrow(0, slice->begin, slice->part.weight.numel()).copy_(values(*slice));
  }
}

at::Tensor Master(const Parameter& parameter) {
  return LoadMaster({parameter.name, const_cast<Parameter*>(&parameter), 0, parameter.weight.size(0)});
}

Outcome Train(const Variant& variant, const Run& run) {
  Outcome outcome;
  std::mutex mutex;
  RunGang(run.world, [&](ProcessGroup& group) {
    const std::unique_ptr<Transformer> model = MakeModel(variant);
    ShardedModel sharded(*model, group,
                         {.reshard_after_forward = run.reshard, .reduce_each_micro_batch = !run.reduce_once});
    AdamW optimizer(sharded.parameters(), {.weight_decay = 0.1});
    for (int64_t step = 0; step < 3; ++step) {
      ZeroGradients(sharded.parameters());
      const std::vector<MicroBatch> rows = Rows(step);
      double loss = 0;
      for (size_t first = 0; first < rows.size(); first += run.world) {
        const size_t row = first + group.rank();
        sharded.set_last_micro_batch(first + run.world >= rows.size());
        loss +=
            ForwardBackward(*model, row < rows.size() ? rows[row] : MicroBatch{}, SupervisedObjective(), kScored).loss;
      }
      ZeroFrozenGradients(sharded.parameters());
      const double norm = GlobalGradientNorm(sharded.parameters());
      double sum = 0, squares = 0;
      for (const auto& of_rank : group.AllGatherValues(std::vector<double>{loss, norm * norm})) {
        sum += of_rank[0];
        squares += of_rank[1];
      }
      const std::lock_guard lock(mutex);
      if (group.rank() == 0) outcome.losses.push_back(sum);
      if (step == 0) {
        const auto gradient = [](const ShardSlice& slice) {
          return slice.part.trainable ? slice.part.gradient : at::zeros_like(slice.part.weight);
        };
        Collect(sharded.slices(), gradient, outcome.gradients);
      }
      optimizer.Step(0.01, ClipScale(std::sqrt(squares), kMaxNorm));
    }
    const std::lock_guard lock(mutex);
    Collect(sharded.slices(), [](const ShardSlice& slice) { return Master(slice.part); }, outcome.weights);
  });
  return outcome;
}

// The same without shards.
Outcome TrainWhole(const Variant& variant) {
  Outcome outcome;
  const std::unique_ptr<Transformer> model = MakeModel(variant);
  AdamW optimizer(model->parameters(), {.weight_decay = 0.1});
  for (int64_t step = 0; step < 3; ++step) {
    ZeroGradients(model->parameters());
    double loss = 0;
    for (const MicroBatch& row : Rows(step)) loss += ForwardBackward(*model, row, SupervisedObjective(), kScored).loss;
    ZeroFrozenGradients(model->parameters());
    outcome.losses.push_back(loss);
    for (Parameter* parameter : model->parameters()) {
      if (step > 0) break;
      outcome.gradients[parameter->name] =
          parameter->trainable ? GradientBuffer(*parameter).clone() : at::zeros(parameter->weight.sizes());
    }
    optimizer.Step(0.01, ClipScale(GlobalGradientNorm(model->parameters()), kMaxNorm));
  }
  for (const Parameter* parameter : model->parameters()) outcome.weights[parameter->name] = Master(*parameter);
  return outcome;
}

void ExpectClose(const std::map<std::string, at::Tensor>& expected, const std::map<std::string, at::Tensor>& actual,
                 double tolerance) {
  ASSERT_EQ(expected.size(), actual.size());
  for (const auto& [name, tensor] : expected) {
    const double error = (tensor - actual.at(name)).norm().item<double>();
    EXPECT_LE(error, tolerance * tensor.norm().item<double>() + 1e-12) << name;
  }
}

bool SameBits(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b) {
  return std::ranges::all_of(a, [&](const auto& entry) { return at::equal(entry.second, b.at(entry.first)); });
}

class ShardedModelTest : public testing::TestWithParam<Variant> {};

TEST_P(ShardedModelTest, TrainingOnManyRanks_IsTrainingOnOne) {
  const Outcome expected = TrainWhole(GetParam());
  const bool bf16 = GetParam().options.dtype == at::kBFloat16;
  for (const int world : {1, 2, 3, 4}) {
    SCOPED_TRACE(world);
    const Outcome actual = Train(GetParam(), {.world = world});
    for (size_t step = 0; step < expected.losses.size(); ++step) {
      EXPECT_NEAR(actual.losses[step], expected.losses[step], (bf16 ? 1e-3 : 1e-5) * expected.losses[step]);
    }
    ExpectClose(expected.gradients, actual.gradients, bf16 ? 1e-4 : 1e-5);
    ExpectClose(expected.weights, actual.weights, bf16 ? 2e-4 : 1e-4);
  }
}

TEST_P(ShardedModelTest, WeightsKeptAfterTheForwardPass_GiveTheSameBits) {
  const Outcome resharded = Train(GetParam(), {.world = 2}), kept = Train(GetParam(), {.world = 2, .reshard = false});
  EXPECT_EQ(resharded.losses, kept.losses);
  EXPECT_TRUE(SameBits(resharded.weights, kept.weights));
}

TEST_P(ShardedModelTest, GradientsReducedOnceAStep_AreTheSame) {
  const bool bf16 = GetParam().options.dtype == at::kBFloat16;
  for (const int world : {1, 2, 3}) {
    const Outcome expected = Train(GetParam(), {.world = world});
    const Outcome actual = Train(GetParam(), {.world = world, .reduce_once = true});
    ExpectClose(expected.gradients, actual.gradients, bf16 ? 1e-4 : 1e-5);
    ExpectClose(expected.weights, actual.weights, bf16 ? 2e-4 : 1e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(, ShardedModelTest, testing::ValuesIn(Variants()),
                         [](const auto& info) { return info.param.name; });

// The slices are those runs of the whole model's masters.
void ExpectSlicesOf(const Transformer& whole, const ShardedModel& sharded) {
  std::map<std::string, at::Tensor> masters;
  for (const Parameter* parameter : whole.parameters()) masters[parameter->name] = Master(*parameter).view(-1);
  for (const ShardSlice* slice : sharded.slices()) {
    const at::Tensor actual = Master(slice->part);
    EXPECT_TRUE(at::equal(actual, masters[slice->whole->name].narrow(0, slice->begin, actual.numel())))
        << slice->whole->name;
  }
}

std::vector<Variant> VariantsWithDora() {
  std::vector<Variant> variants = Variants();
  const LoraConfig dora = {.rank = 2, .dora = true, .sites = {{"layers.0.attn.o"}, {"layers.2.mlp.down"}}, .seed = 5};
  variants.push_back({.name = "Dora", .options = {.lora = dora}});
  variants.push_back({.name = "DoraBf16", .options = {.dtype = at::kBFloat16, .lora = dora}});
  return variants;
}

TEST(ShardedModel, AModelThatNeverHadMemory_GetsTheValuesOfAWholeOne) {
  for (const Variant& variant : VariantsWithDora()) {
    SCOPED_TRACE(variant.name);
    const std::unique_ptr<Transformer> whole = MakeModel(variant);
    whole->InitLora();
    RunGang(3, [&](ProcessGroup& group) {
      const std::unique_ptr<Transformer> model = MakeModel(variant, at::kMeta);
      const ShardedModel sharded(*model, group);
      Fill(*model);
      model->InitLora();
      ExpectSlicesOf(*whole, sharded);
    });
  }
}

TEST(ShardedModel, AdaptersMergedInShards_GiveTheWeightsOfAWholeModel) {
  for (const Variant& variant : VariantsWithDora()) {
    if (!variant.options.lora || variant.options.dtype != at::kFloat) continue;
    SCOPED_TRACE(variant.name);
    const std::unique_ptr<Transformer> whole = MakeModel(variant);
    whole->InitLora();
    whole->MergeLora();
    RunGang(3, [&](ProcessGroup& group) {
      const std::unique_ptr<Transformer> model = MakeModel(variant);
      model->InitLora();
      const ShardedModel sharded(*model, group);
      model->MergeLora();
      ExpectSlicesOf(*whole, sharded);
    });
  }
}

TEST(GatherMaster, APartOfAParameter_ComesTogetherWhereItShall) {
  for (const Variant& variant : Variants()) {
    SCOPED_TRACE(variant.name);
    const std::unique_ptr<Transformer> whole = MakeModel(variant);
    RunGang(3, [&](ProcessGroup& group) {
      const std::unique_ptr<Transformer> model = MakeModel(variant);
      const ShardedModel sharded(*model, group);
      for (size_t i = 0; i < whole->views().size(); ++i) {
        const WeightView& view = model->views()[i];
        const at::Tensor expected = LoadMaster(whole->views()[i]);
        EXPECT_TRUE(at::equal(GatherMaster(view, &group, ProcessGroup::kAll), expected)) << view.name;
        const at::Tensor on_one = GatherMaster(view, &group, /*to=*/1);
        EXPECT_EQ(on_one.defined(), group.rank() == 1) << view.name;
        EXPECT_TRUE(!on_one.defined() || at::equal(on_one, expected)) << view.name;
      }
    });
  }
}

TEST(ShardedModel, SameWorldTwice_IsTheSameBits) {
  const Variant variant = Variants()[0];
  const Outcome first = Train(variant, {.world = 3}), second = Train(variant, {.world = 3});
  EXPECT_EQ(first.losses, second.losses);
  EXPECT_TRUE(SameBits(first.gradients, second.gradients));
  EXPECT_TRUE(SameBits(first.weights, second.weights));
}

int64_t BytesOfOneMicroBatch(const Variant& variant, int world, bool reshard) {
  std::atomic<int64_t> bytes = 0;
  RunGang(world, [&](ProcessGroup& group) {
    const std::unique_ptr<Transformer> model = MakeModel(variant);
    const ShardedModel sharded(*model, group, {.reshard_after_forward = reshard});
    ForwardBackward(*model, Document(1, 4), SupervisedObjective(), 3);
    bytes += group.bytes_sent();
  });
  return bytes / world;
}

// docs/ARCHITECTURE.md, "Sharding": P·(2 + 2 + 4)·(n − 1)/n with bf16 weights, and less of what is frozen or kept.
TEST(ShardedModel, BytesSent_AreTwoGathersAndAReduction) {
  Variant variant = {.config = SmallConfig(), .options = {.dtype = at::kBFloat16}};
  variant.config.hidden_size = 128;  // what padding adds is little
  int64_t weights = 0;
  const std::unique_ptr<Transformer> whole = MakeModel(variant);
  for (const Parameter* parameter : whole->parameters()) weights += parameter->weight.numel();
  for (const int world : {2, 4}) {
    const double share = static_cast<double>(weights) * (world - 1) / world;
    EXPECT_NEAR(BytesOfOneMicroBatch(variant, world, true), 8 * share, 0.01 * 8 * share);
    EXPECT_NEAR(BytesOfOneMicroBatch(variant, world, false), 6 * share, 0.01 * 6 * share);
  }
  variant.options.lora = {.rank = 1, .sites = {{"layers.0.attn.q"}}};  // of hardly any size
  const double share = static_cast<double>(weights) / 2;
  EXPECT_NEAR(BytesOfOneMicroBatch(variant, 2, true), 4 * share, 0.02 * 4 * share);
}

TEST(ShardedModel, ARank_KeepsItsShareOnly) {
  RunGang(4, [&](ProcessGroup& group) {
    const std::unique_ptr<Transformer> model = MakeModel(Variants()[0]);
    const ShardedModel sharded(*model, group);
    ForwardBackward(*model, Document(1, 4), SupervisedObjective(), 3);
    ScoredLogprobs(*model, Document(1, 4));
    int64_t elements = 0, kept = 0;
    for (const Parameter* parameter : model->parameters()) {
      elements += parameter->weight.numel();
      EXPECT_EQ(parameter->weight.storage().data(), nullptr) << parameter->name;
      EXPECT_EQ(parameter->gradient.storage().data(), nullptr) << parameter->name;
    }
    for (const Parameter* parameter : sharded.parameters()) kept += parameter->weight.numel();
    double all = 0;
    for (const auto& of_rank : group.AllGatherValues(std::vector<double>{static_cast<double>(kept)})) all += of_rank[0];
    EXPECT_EQ(all, elements);
    EXPECT_NEAR(4.0 * kept / elements, 1, 0.15);  // the rest is where the last rank has padding
  });
}

TEST(ShardedModel, Evaluation_IsThatOfTheWholeModel) {
  const at::Tensor expected_S = ScoredLogprobs(*MakeModel(Variants()[0]), Document(1, 6));
  RunGang(2, [&](ProcessGroup& group) {
    const std::unique_ptr<Transformer> model = MakeModel(Variants()[0]);
    const ShardedModel sharded(*model, group);
    EXPECT_TRUE(at::equal(ScoredLogprobs(*model, Document(1, 6)), expected_S));
  });
}

}  // namespace
}  // namespace temper
