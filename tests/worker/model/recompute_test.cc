// SPDX-License-Identifier: Apache-2.0
// What is computed again in backward is what was computed before, to the bit.
#include "worker/model/recompute.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>

#include "tests/peak_tensor_bytes.h"
#include "worker/model/gradient.h"
#include "worker/model/transformer.h"
#include "worker/train/objective.h"
#include "worker/train/step_metrics.h"
#include "worker/train/train_step.h"

namespace temper {
namespace {

ModelConfig SmallConfig() {
  ModelConfig config;
  config.hidden_size = 16;
  config.num_layers = 3;
  config.vocab_size = 70;
  config.attention = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 8, .scale = 0.35};
  config.feed_forward.intermediate_size = 24;
  return config;
}

ModelConfig ExpertConfig() {
  ModelConfig config = SmallConfig();
  config.layers = {{.experts = true}, {}, {.experts = true}};
  config.moe = {.num_experts = 4, .top_k = 2, .intermediate_size = 8, .balance_coefficient = 0.1};
  return config;
}

struct Variant {
  std::string name;
  ModelConfig config = SmallConfig();
  TransformerOptions options;
};

std::vector<Variant> Variants() {
  const LoraConfig lora = {.rank = 2, .alpha = 4, .sites = {{"layers.1.attn.q"}, {"layers.2.mlp.down"}}};
  LoraConfig dropout = lora;
  dropout.dropout = 0.5;
  return {{.name = "Dense"},
          {.name = "Bf16", .options = {.dtype = at::kBFloat16}},
          {.name = "Experts", .config = ExpertConfig()},
          {.name = "Lora", .options = {.lora = lora}},
          {.name = "LoraThatDrops", .options = {.lora = dropout}}};
}

MicroBatch Sample(int64_t tokens) {
  MicroBatch batch;
  for (int64_t i = 0; i < tokens; ++i) {
    batch.tokens_T.push_back((11 * i + i * i) % 70);
    batch.targets_T.push_back((11 * (i + 1) + (i + 1) * (i + 1)) % 70);
    batch.positions_T.push_back(i);
    batch.loss_mask_T.push_back(i + 1 < tokens);
  }
  batch.document_starts = {0, tokens};
  batch.capacity = tokens;
  return batch;
}

std::unique_ptr<Transformer> MakeModel(const Variant& variant, const std::vector<Recompute>& recompute) {
  auto model = std::make_unique<Transformer>(variant.config, variant.options);
  at::manual_seed(3);
  for (const WeightView& view : model->views()) StoreMaster(view, at::randn(view.shape()) * 0.3);
  for (LoraAdapter* adapter : model->adapters()) {
    StoreMaster({"", &adapter->b_OR, 0, adapter->rows}, at::randn({adapter->rows, adapter->rank()}));
  }
  model->SetRecompute(recompute);
  return model;
}

struct Outcome {
  double loss = 0;
  std::vector<at::Tensor> gradients;  // of two micro-batches
  at::Tensor random;                  // the next number
};

Outcome Train(const Variant& variant, const std::vector<Recompute>& recompute) {
  const auto model = MakeModel(variant, recompute);
  Outcome outcome;
  for (const int64_t tokens : {11, 6}) {
    outcome.loss += ForwardBackward(*model, Sample(tokens), SupervisedObjective(), 15).loss;
  }
  for (const Parameter* parameter : model->parameters()) {
    if (parameter->trainable) outcome.gradients.push_back(parameter->gradient);
  }
  outcome.random = at::rand({1});
  return outcome;
}

class RecomputeTest : public testing::TestWithParam<Variant> {};

TEST_P(RecomputeTest, AnyOfIt_ChangesNoBit) {
  using enum Recompute;
  const Outcome expected = Train(GetParam(), {kNone, kNone, kNone});
  const std::vector<Recompute> policies[] = {
      {kAttention, kAttention, kAttention}, {kBlock, kBlock, kBlock}, {kNone, kBlock, kAttention}};
  for (const std::vector<Recompute>& policy : policies) {
    const Outcome actual = Train(GetParam(), policy);
    EXPECT_EQ(actual.loss, expected.loss);
    for (size_t i = 0; i < expected.gradients.size(); ++i) {
      EXPECT_TRUE(at::equal(actual.gradients[i], expected.gradients[i])) << i;
    }
    EXPECT_TRUE(at::equal(actual.random, expected.random)) << "what comes after goes on with other numbers";
  }
}

INSTANTIATE_TEST_SUITE_P(, RecomputeTest, testing::ValuesIn(Variants()),
                         [](const auto& info) { return info.param.name; });

TEST(Recompute, Flops_AreInHfuAlone) {
  using enum Recompute;
  const StepWork work = {.tokens = 10, .scored_tokens = 10, .attention_pairs = {55}};
  const FlopRates none = MakeModel({}, {kNone, kNone, kNone})->flop_rates();
  const FlopRates attention = MakeModel({}, {kAttention, kNone, kNone})->flop_rates();
  const FlopRates block = MakeModel({}, {kNone, kBlock, kNone})->flop_rates();
  EXPECT_EQ(ModelFlops(block, work), ModelFlops(none, work));
  // Of one layer: q, k, v and o (16 × 16 and 2 · 16 × 8 weights), scores and weighted sum (2 · 2 · 16 a pair).
  const double again = 10 * 2.0 * (2 * 16 * 16 + 2 * 16 * 8) + 55 * 4.0 * 16;
  EXPECT_DOUBLE_EQ(HardwareFlops(attention, work) - HardwareFlops(none, work), again);
  // And gate, up and down.
  EXPECT_DOUBLE_EQ(HardwareFlops(block, work) - HardwareFlops(none, work), again + 10 * 2.0 * 3 * 16 * 24);
}

TEST(Recompute, Memory_IsThatOfOneBlock) {
  using enum Recompute;
  Variant variant;
  variant.config.num_layers = 12;
  variant.config.feed_forward.intermediate_size = 512;
  variant.config.hidden_size = 128;
  const MicroBatch batch = Sample(2048);
  const auto peak = [&](Recompute what) {
    const auto model = MakeModel(variant, std::vector<Recompute>(12, what));
    const auto step = [&] { ForwardBackward(*model, batch, SupervisedObjective(), 1); };
    step();  // gradients have their memory
    return PeakTensorBytesOf(step);
  };
  const int64_t all = peak(kNone), attention = peak(kAttention), block = peak(kBlock);
  EXPECT_LT(block, all / 2);
  EXPECT_LT(block, attention * 3 / 4);
  EXPECT_LT(attention, all);
}

}  // namespace
}  // namespace temper
