// SPDX-License-Identifier: Apache-2.0
// What the model computes is compared with transformers in tests/parity; here are its parts and names.
#include "worker/model/transformer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/model/gradient.h"
#include "worker/train/objective.h"
#include "worker/train/train_step.h"

namespace temper {
namespace {

using ::testing::Contains;
using ::testing::Not;

ModelConfig SmallConfig() {
  ModelConfig config;
  config.hidden_size = 16;
  config.num_layers = 2;
  config.vocab_size = 70;
  config.attention = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 8, .scale = 0.35};
  config.feed_forward.intermediate_size = 24;
  return config;
}

void Randomise(Transformer& model) {
  at::manual_seed(3);
  for (const WeightView& view : model.views()) StoreMaster(view, at::randn(view.shape()) * 0.3);
}

MicroBatch Sample() {
  MicroBatch batch;
  batch.tokens_T = {1, 2, 3, 4, 5, 6};
  batch.targets_T = {2, 3, 0, 5, 6, 0};
  batch.positions_T = {0, 1, 2, 0, 1, 2};
  batch.loss_mask_T = {1, 1, 0, 0, 1, 0};
  batch.document_starts = {0, 3, 6};
  batch.capacity = 6;
  return batch;
}

std::vector<std::string> Names(const Transformer& model) {
  std::vector<std::string> names;
  for (const WeightView& view : model.views()) names.push_back(view.name);
  return names;
}

TEST(Transformer, Views_CoverEveryWeightOnceAndNoPadding) {
  const Transformer model(SmallConfig(), {});
  EXPECT_THAT(Names(model), Contains("layers.1.attn.k.weight"));
  EXPECT_THAT(Names(model), Contains("lm_head.weight"));
  int64_t named = 0, held = 0;
  for (const WeightView& view : model.views()) named += at::zeros(view.shape()).numel();
  for (const Parameter* parameter : model.parameters()) held += parameter->weight.numel();
  const int64_t padding = 2 * (128 - 70) * 16;  // embedding and head
  EXPECT_EQ(named + padding, held);
}

TEST(Transformer, TiedHead_IsTheEmbedding) {
  ModelConfig config = SmallConfig();
  config.tied_head = true;
  Transformer model(config, {});
  EXPECT_THAT(Names(model), Not(Contains("lm_head.weight")));
  EXPECT_EQ(model.head().weight(), model.parameters().front());
}

TEST(Transformer, NormsAndBiases_AreNotDecayed) {
  ModelConfig config = SmallConfig();
  config.attention.qkv_bias = true;
  const Transformer model(config, {});
  for (const Parameter* parameter : model.parameters()) {
    EXPECT_EQ(parameter->decayed, parameter->weight.dim() == 2) << parameter->name;
  }
}

TEST(Transformer, NewAdapters_ChangeNothingAndAloneAreTrained) {
  const LoraConfig lora = {
      .rank = 2, .alpha = 4, .sites = {{"layers.0.attn.k"}, {"layers.1.mlp.up"}, {"layers.1.mlp.down"}}};
  Transformer plain(SmallConfig(), {}), adapted(SmallConfig(), {.lora = lora});
  Randomise(plain);
  Randomise(adapted);
  EXPECT_TRUE(at::equal(ForwardHidden(plain, Sample()), ForwardHidden(adapted, Sample())));

  ForwardBackward(adapted, Sample(), SupervisedObjective(), 3);
  for (const Parameter* parameter : adapted.parameters()) {
    EXPECT_EQ(parameter->trainable, parameter->name.find("lora_") != std::string::npos) << parameter->name;
    EXPECT_EQ(parameter->gradient.defined(), parameter->trainable) << parameter->name;
  }
  // B is zero, so A's gradient is; B's is not.
  ASSERT_EQ(adapted.adapters().size(), 3u);
  for (LoraAdapter* adapter : adapted.adapters()) {
    EXPECT_EQ(adapter->a_RI.gradient.abs().sum().item<float>(), 0) << adapter->site;
    EXPECT_GT(adapter->b_OR.gradient.abs().sum().item<float>(), 0) << adapter->site;
  }
}

TEST(Transformer, TrainedAdapter_IsALowRankChangeOfItsRowsAlone) {
  const LoraConfig lora = {.rank = 2, .alpha = 4, .sites = {{"layers.0.attn.k"}}};
  Transformer adapted(SmallConfig(), {.lora = lora}), merged(SmallConfig(), {});
  Randomise(adapted);
  Randomise(merged);
  LoraAdapter& adapter = *adapted.adapters().front();
  StoreMaster({"", &adapter.b_OR, 0, adapter.rows}, at::randn({adapter.rows, 2}));
  for (const WeightView& view : merged.views()) {
    if (view.name != "layers.0.attn.k.weight") continue;
    StoreMaster(view, LoadMaster(view) + 2.0 * at::matmul(adapter.b_OR.weight, adapter.a_RI.weight));
  }
  EXPECT_TRUE(at::allclose(ForwardHidden(adapted, Sample()), ForwardHidden(merged, Sample()), 1e-4, 1e-5));
}

TEST(Transformer, MergedAdapters_AreTheSameModel) {
  for (const bool dora : {false, true}) {
    const LoraConfig lora = {
        .rank = 2, .alpha = 4, .dora = dora, .sites = {{"layers.0.attn.k"}, {"layers.1.mlp.gate", 2}}};
    Transformer model(SmallConfig(), {.lora = lora});
    Randomise(model);
    model.InitLora();
    const at::Tensor before = ForwardHidden(model, Sample());
    for (LoraAdapter* adapter : model.adapters()) {
      StoreMaster({"", &adapter->b_OR, 0, adapter->rows}, at::randn({adapter->rows, 2}));
      if (dora) StoreMaster({"", &adapter->m_O, 0, adapter->rows}, at::rand({adapter->rows}) + 0.5);
    }
    const at::Tensor adapted = ForwardHidden(model, Sample());
    EXPECT_FALSE(at::allclose(adapted, before, 1e-2, 1e-2));
    model.MergeLora();
    EXPECT_EQ(model.adapters().front()->b_OR.weight.abs().sum().item<float>(), 0);
    EXPECT_TRUE(at::allclose(ForwardHidden(model, Sample()), adapted, 1e-4, 1e-5)) << dora;
  }
}

// An expert layer above a dense one, and a tied head if asked for.
ModelConfig ExpertConfig(bool tied) {
  ModelConfig config = SmallConfig();
  config.tied_head = tied;
  config.layers = {{}, {.experts = true}};
  config.moe = {.num_experts = 4, .top_k = 2, .intermediate_size = 10};
  return config;
}

// On everything that is no linear layer of a block.
LoraConfig ExpertLora(bool tied) {
  LoraConfig lora = {
      .rank = 2, .alpha = 4, .sites = {{"embed"}, {"layers.1.mlp.experts.gate_up"}, {"layers.1.mlp.experts.down"}}};
  lora.tied_head = tied;
  if (!tied) lora.sites.push_back({"lm_head"});
  return lora;
}

at::Tensor Logits(Transformer& model) { return model.head().Logits(ForwardHidden(model, Sample())); }

TEST(Transformer, NewAdaptersOnTokensAndExperts_ChangeNothingAndAloneAreTrained) {
  for (const bool tied : {false, true}) {
    Transformer plain(ExpertConfig(tied), {}), adapted(ExpertConfig(tied), {.lora = ExpertLora(tied)});
    Randomise(plain);
    Randomise(adapted);
    EXPECT_TRUE(at::equal(Logits(plain), Logits(adapted)));
    ASSERT_EQ(adapted.adapters().size(), tied ? 3u : 4u);
    ForwardBackward(adapted, Sample(), SupervisedObjective(), 3);
    for (const Parameter* parameter : adapted.parameters()) {
      EXPECT_EQ(parameter->gradient.defined(), parameter->trainable) << parameter->name;
    }
    for (const LoraAdapter* adapter : adapted.adapters()) {
      EXPECT_EQ(adapter->a_RI.gradient.abs().sum().item<float>(), 0) << adapter->site;
      EXPECT_GT(adapter->b_OR.gradient.abs().sum().item<float>(), 0) << adapter->site;
    }
  }
}

TEST(Transformer, MergedAdaptersOnTokensAndExperts_AreTheSameModel) {
  for (const bool tied : {false, true}) {
    Transformer model(ExpertConfig(tied), {.lora = ExpertLora(tied)});
    Randomise(model);
    const at::Tensor before = Logits(model);
    for (LoraAdapter* adapter : model.adapters()) {
      StoreMaster({"", &adapter->b_OR, 0, adapter->rows}, at::randn({adapter->rows, 2}) * 0.3);
    }
    const at::Tensor adapted = Logits(model);
    EXPECT_FALSE(at::allclose(adapted, before, 1e-2, 1e-2));
    model.MergeLora();
    for (const LoraAdapter* adapter : model.adapters()) {
      EXPECT_EQ(adapter->b_OR.weight.abs().sum().item<float>(), 0) << adapter->site;
    }
    EXPECT_TRUE(at::allclose(Logits(model), adapted, 1e-4, 1e-4));
  }
}

TEST(Transformer, AdapterOfOneSideOfATiedHead_ChangesThatAloneAndCannotBeMerged) {
  LoraConfig lora = {.rank = 2, .alpha = 4, .sites = {{"lm_head"}}};
  Transformer model(ExpertConfig(/*tied=*/true), {.lora = lora});
  Randomise(model);
  const at::Tensor hidden = ForwardHidden(model, Sample()), logits = Logits(model);
  LoraAdapter& adapter = *model.adapters().front();
  StoreMaster({"", &adapter.b_OR, 0, adapter.rows}, at::randn({adapter.rows, 2}));
  EXPECT_TRUE(at::equal(ForwardHidden(model, Sample()), hidden));
  EXPECT_FALSE(at::allclose(Logits(model), logits, 1e-2, 1e-2));
  EXPECT_THROW(model.MergeLora(), c10::Error);
}

TEST(Transformer, NewDoraAdapters_ChangeNothing) {
  const LoraConfig lora = {.rank = 2, .alpha = 4, .dora = true, .sites = {{"layers.0.attn.k"}}};
  Transformer plain(SmallConfig(), {}), adapted(SmallConfig(), {.lora = lora});
  Randomise(plain);
  Randomise(adapted);
  adapted.InitLora();
  EXPECT_TRUE(at::allclose(ForwardHidden(plain, Sample()), ForwardHidden(adapted, Sample()), 1e-5, 1e-6));
}

TEST(Transformer, AdapterOverSeveralParts_IsOneUpdateOfAllTheirRows) {
  const LoraConfig lora = {.rank = 2, .alpha = 4, .sites = {{"layers.0.attn.q", 3}}};
  Transformer adapted(SmallConfig(), {.lora = lora});
  ASSERT_EQ(adapted.adapters().size(), 1u);
  EXPECT_EQ(adapted.adapters()[0]->row, 0);
  EXPECT_EQ(adapted.adapters()[0]->rows, 16 + 8 + 8);
}

TEST(Transformer, UnknownLoraSite_Throws) {
  const LoraConfig lora = {.sites = {{"layers.7.attn.q"}}};
  EXPECT_THROW(Transformer(SmallConfig(), {.lora = lora}), c10::Error);
}

}  // namespace
}  // namespace temper
