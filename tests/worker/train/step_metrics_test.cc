// SPDX-License-Identifier: Apache-2.0
#include "worker/train/step_metrics.h"

#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/model/transformer.h"
#include "worker/train/preference_objective.h"

namespace temper {
namespace {

ModelConfig SmallConfig() {
  ModelConfig config;
  config.hidden_size = 32;
  config.num_layers = 2;
  config.vocab_size = 100;
  config.attention = {.num_heads = 4, .num_kv_heads = 2, .head_dim = 8, .scale = 0.35};
  config.feed_forward.intermediate_size = 48;
  return config;
}

// Weights of the linear maps of all blocks: q, k, v, o, gate, up, down.
constexpr double kBlockWeights = 2 * (32 * (32 + 16 + 16) + 32 * 32 + 3 * 32 * 48);

TEST(ModelFlops, FullTraining_IsSixPerWeightAndToken) {
  const FlopRates rates = Transformer(SmallConfig(), {}).flop_rates();
  EXPECT_DOUBLE_EQ(rates.per_token, 6 * kBlockWeights);
  EXPECT_DOUBLE_EQ(rates.per_scored_token, 6.0 * 32 * 100);  // padding rows are no useful work
  ASSERT_EQ(rates.attention.size(), 1u);
  EXPECT_DOUBLE_EQ(rates.attention[0].per_pair, 2 * 12.0 * 32);
}

TEST(ModelFlops, LayersWithAWindow_CountThePairsInIt) {
  ModelConfig config = SmallConfig();
  config.layers = {{.window = 3}, {}};
  const FlopRates rates = Transformer(config, {}).flop_rates();
  ASSERT_EQ(rates.attention.size(), 2u);
  EXPECT_DOUBLE_EQ(rates.attention[0].per_pair, 12.0 * 32);
  MicroBatch batch;
  batch.document_starts = {0, 5, 7};
  const StepWork work = CountWork(rates, {batch}, SupervisedObjective());
  for (size_t i = 0; i < 2; ++i) {
    // A document of 5: 1 + 2 + 3 + 3 + 3 pairs; of 2: 1 + 2.
    EXPECT_EQ(work.attention_pairs[i], rates.attention[i].window == 3 ? 12 + 3 : 15 + 3);
  }
}

TEST(ModelFlops, FrozenBase_IsFourPerWeightAndSixPerAdapterWeight) {
  const LoraConfig lora = {.rank = 4, .alpha = 8, .sites = {{"layers.1.mlp.down"}}};
  const FlopRates rates = Transformer(SmallConfig(), {.lora = lora}).flop_rates();
  // Nothing trains below layers.1.mlp.down, but that is not known to a rule of shapes; only the first block's q, k, v
  // have an input (the frozen embedding) that certainly wants no gradient.
  const double first_qkv = 32 * (32 + 16 + 16);
  EXPECT_DOUBLE_EQ(rates.per_token, 4 * kBlockWeights - 2 * first_qkv + 6.0 * (4 * 48 + 32 * 4));
  EXPECT_DOUBLE_EQ(rates.per_scored_token, 4.0 * 32 * 100);
}

TEST(ModelFlops, AdaptersOfEmbeddingAndHead_AreSixPerWeightThatIsMultiplied) {
  const LoraConfig lora = {.rank = 4, .sites = {{"embed"}, {"lm_head"}}};
  const FlopRates rates = Transformer(SmallConfig(), {.lora = lora}).flop_rates();
  // A row of B is looked up. Now the first block's input wants a gradient.
  EXPECT_DOUBLE_EQ(rates.per_token, 4 * kBlockWeights + 6.0 * (4 * 32));
  EXPECT_DOUBLE_EQ(rates.per_scored_token, 4.0 * 32 * 100 + 6.0 * (4 * 32 + 100 * 4));
}

TEST(ModelFlops, AdaptersOfExperts_CountForThoseThatATokenGoesThrough) {
  ModelConfig config = SmallConfig();
  config.layers.assign(config.num_layers, {});
  config.layers.back().experts = true;
  config.moe = {.num_experts = 8, .top_k = 2, .intermediate_size = 10};
  const std::string experts = "layers." + std::to_string(config.num_layers - 1) + ".mlp.experts.";
  const LoraConfig lora = {.rank = 4, .sites = {{experts + "gate_up"}, {experts + "down"}}};
  const double frozen = Transformer(config, {.lora = LoraConfig{}}).flop_rates().per_token;
  const double adapted = Transformer(config, {.lora = lora}).flop_rates().per_token;
  EXPECT_DOUBLE_EQ(adapted - frozen, 6.0 * 2 * (4 * 32 + 20 * 4 + 4 * 10 + 32 * 4));
}

TEST(CountWork, MicroBatches_AreSummed) {
  MicroBatch batch;
  batch.tokens_T = {5, 6, 7, 8};
  batch.loss_mask_T = {0, 1, 0, 0};
  batch.document_starts = {0, 3, 4};
  batch.capacity = 10;
  const StepWork work = CountWork({.attention = {{}}}, {batch, batch}, SupervisedObjective());
  EXPECT_EQ(work.tokens, 8);
  EXPECT_EQ(work.capacity, 20);
  EXPECT_EQ(work.scored_tokens, 2);
  EXPECT_EQ(work.attention_pairs[0], 2 * (6 + 1));
}

TEST(CountWork, PassOfTheReference_IsAForwardPassMore) {
  const LoraConfig lora = {.rank = 4, .sites = {{"layers.1.mlp.down"}}};
  const FlopRates rates = Transformer(SmallConfig(), {.lora = lora}).flop_rates();
  MicroBatch batch;
  batch.tokens_T = {5, 6, 7, 8};
  batch.loss_mask_T = {0, 1, 1, 0};
  batch.document_starts = {0, 2, 4};
  const auto flops = [&](Reference reference) {
    return ModelFlops(rates, CountWork(rates, {batch}, PreferenceObjective({}, reference)));
  };
  // Two a weight, of the frozen model alone; 3 pairs of positions in each document.
  const double forward = 4 * 2 * kBlockWeights + 2 * 2 * 32.0 * 100 + 6 * rates.attention[0].per_pair / 3;
  EXPECT_DOUBLE_EQ(flops(Reference::kWithoutAdapters) - flops(Reference::kStored), forward);
}

TEST(HardwareFlops, Recomputation_IsAddedForEveryPair) {
  FlopRates rates;
  rates.attention = {{.per_pair = 12, .recomputed_per_pair = 2}};
  const StepWork work{.attention_pairs = {10}};
  EXPECT_DOUBLE_EQ(HardwareFlops(rates, work), ModelFlops(rates, work) + 20);
}

// Whoever starts a rank may be larger. Here it is this test, which starts itself.
TEST(PeakMemoryBytes, LargerParent_IsNotCounted) {
  constexpr int64_t kLarge = int64_t{800} << 20;
  constexpr const char* kIsChild = "TEMPER_TEST_IS_CHILD";
  if (std::getenv(kIsChild) != nullptr) std::_Exit(PeakMemoryBytes() < kLarge / 2 ? 0 : 1);
  const std::vector<char> large(kLarge, 1);
  EXPECT_GE(PeakMemoryBytes(), kLarge);
  std::string self = "/proc/self/exe", filter = "--gtest_filter=PeakMemoryBytes.*",
              is_child = absl::StrCat(kIsChild, "=1");
  char* const arguments[] = {self.data(), filter.data(), nullptr};
  char* const environment[] = {is_child.data(), nullptr};
  pid_t child = 0;
  ASSERT_EQ(posix_spawn(&child, self.c_str(), nullptr, nullptr, arguments, environment), 0);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace temper
