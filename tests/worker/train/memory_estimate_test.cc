// SPDX-License-Identifier: Apache-2.0
// That estimates are about what training takes is measured in tests/e2e/test_preflight.py.
#include "worker/train/memory_estimate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/common/scratch_directory.h"
#include "tests/worker/checkpoint/tiny_llama.h"

namespace temper {
namespace {

class ChooseRecomputeTest : public testing::Test {
 protected:
  ChooseRecomputeTest() { model_.config.num_layers = 4; }

  int64_t Total(const std::vector<Recompute>& recompute) {
    return EstimateMemory(job_, model_, /*plan=*/nullptr, /*bf16=*/false, /*takes_checkpoints=*/false, recompute)
        .total();
  }
  std::vector<Recompute> Choose(int64_t available) {
    return ChooseRecompute(job_, model_, /*plan=*/nullptr, /*bf16=*/false, available);
  }
  // With a tenth to spare.
  std::vector<Recompute> ChooseFor(const std::vector<Recompute>& just_enough) {
    return Choose((Total(just_enough) + 9) / 9 * 10);
  }

  ScratchDirectory scratch_;
  NativeRepository model_ = WriteTinyLlama(scratch_.path() / "model", at::kFloat);
  TrainJob job_;
};

using enum Recompute;

TEST_F(ChooseRecomputeTest, Auto_TakesTheLeastThatMemoryAllows) {
  // A single one frees nothing: while it is computed again, it is there.
  const std::vector<std::vector<Recompute>> from_least_to_most = {{kNone, kNone, kNone, kNone},
                                                                  {kAttention, kAttention, kNone, kNone},
                                                                  {kAttention, kAttention, kAttention, kAttention},
                                                                  {kBlock, kBlock, kAttention, kAttention},
                                                                  {kBlock, kBlock, kBlock, kBlock}};
  for (const auto& recompute : from_least_to_most) EXPECT_EQ(ChooseFor(recompute), recompute) << Describe(recompute);
  EXPECT_TRUE(std::ranges::is_sorted(from_least_to_most, std::greater<>(), [&](const auto& r) { return Total(r); }));
  EXPECT_EQ(Choose(1), from_least_to_most.back());  // what can be done
  EXPECT_EQ(Choose(0), from_least_to_most.front()) << "the system does not tell";
}

TEST_F(ChooseRecomputeTest, OtherPolicies_AreForEveryLayerWhateverTheMemory) {
  job_.training.recompute = RecomputePolicy::kNone;
  EXPECT_EQ(Choose(1), std::vector(4, kNone));
  job_.training.recompute = RecomputePolicy::kAttention;
  EXPECT_EQ(Choose(int64_t{1} << 50), std::vector(4, kAttention));
  job_.training.recompute = RecomputePolicy::kBlock;
  EXPECT_EQ(Choose(int64_t{1} << 50), std::vector(4, kBlock));
}

TEST(Describe, Recompute_SaysOfHowManyLayers) {
  EXPECT_EQ(Describe({kNone, kNone}), "");
  EXPECT_EQ(Describe({kAttention, kNone}), "attention of 1 of 2 layers is computed again in backward");
  EXPECT_EQ(Describe({kBlock, kBlock, kAttention}),
            "all of 2 and attention of 1 of 3 layers is computed again in backward");
}

}  // namespace
}  // namespace temper
