// SPDX-License-Identifier: Apache-2.0
// That estimates are about what training takes is measured in tests/e2e/test_preflight.py.
#include "worker/train/memory_estimate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/common/scratch_directory.h"
#include "tests/peak_tensor_bytes.h"
#include "tests/worker/checkpoint/tiny_llama.h"
#include "worker/train/train_step.h"

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

TEST_F(ChooseRecomputeTest, Teacher_HasItsPart) {
  const int64_t enough = (Total({kNone, kNone, kNone, kNone}) + 9) / 9 * 10;
  const MemoryEstimate teacher = EstimateTeacher(job_, model_, /*bf16=*/false);
  ASSERT_GT(teacher.total(), 0);
  const auto choose = [&](int64_t available) {
    return ChooseRecompute(job_, model_, /*plan=*/nullptr, /*bf16=*/false, available, teacher);
  };
  EXPECT_NE(choose(enough), Choose(enough));
  EXPECT_EQ(choose(enough + 2 * teacher.total()), Choose(enough));
}

TEST(EstimateTeacher, Weights_AreThoseOfAModelThatIsNotTrained) {
  ScratchDirectory scratch;
  const NativeRepository model = WriteTinyLlama(scratch.path() / "model", at::kFloat);
  const TrainJob job;
  const MemoryEstimate trained =
      EstimateMemory(job, model, /*plan=*/nullptr, /*bf16=*/false, /*takes_checkpoints=*/true, {Recompute::kNone});
  const MemoryEstimate teacher = EstimateTeacher(job, model, /*bf16=*/false);
  EXPECT_EQ(teacher.weights, trained.weights);
  EXPECT_EQ(teacher.weights, 2 * EstimateTeacher(job, model, /*bf16=*/true).weights);
  EXPECT_EQ(teacher.total(), teacher.weights + teacher.activations);
}

TEST(EstimateMemory, OfAGpu_IsOneRanks) {
  ScratchDirectory scratch;
  const NativeRepository model = WriteTinyLlama(scratch.path() / "model", at::kFloat);
  const auto estimate = [&](DeviceKind device, int32_t ranks, int32_t per_node) {
    TrainJob job;
    job.device = device;
    job.ranks = ranks;
    job.ranks_per_node = per_node;
    return EstimateMemory(job, model, /*plan=*/nullptr, /*bf16=*/false, /*takes_checkpoints=*/true, {kNone});
  };
  const MemoryEstimate alone = estimate(DeviceKind::kCpu, 1, 1), gpu = estimate(DeviceKind::kCuda, 4, 4);
  EXPECT_EQ(gpu.optimizer, alone.optimizer / 4);
  EXPECT_EQ(estimate(DeviceKind::kCpu, 4, 4).optimizer, alone.optimizer) << "one machine holds it all";
  EXPECT_EQ(gpu.optimizer, estimate(DeviceKind::kCpu, 4, 1).optimizer);
  EXPECT_GT(alone.snapshot, 0);
  EXPECT_EQ(gpu.snapshot, 0) << "it is in the machine's memory";
}

// What more layers take, by the allocator's account.
TEST(EstimateMemory, ActivationsOfALayer_AreWhatItKeeps) {
  ScratchDirectory scratch;
  NativeRepository model = WriteTinyLlama(scratch.path() / "model", at::kFloat);
  model.config = {.hidden_size = 96, .vocab_size = 40, .max_positions = 512};
  model.config.attention = {.num_heads = 6, .num_kv_heads = 2, .head_dim = 16, .scale = 0.25};
  model.config.feed_forward.intermediate_size = 160;
  MicroBatch batch;
  for (int64_t i = 0; i < 512; ++i) {
    batch.tokens_T.push_back(i * 7 % 40);
    batch.targets_T.push_back(i * 11 % 40);
    batch.positions_T.push_back(i);
    batch.loss_mask_T.push_back(1);
  }
  batch.document_starts = {0, 512};
  batch.capacity = 512;
  TrainJob job;
  job.training.micro_batch_tokens = 512;
  struct Kind {
    QkNorm qk_norm;
    bool pre_norm, post_norm;
  };
  for (const Kind& kind :
       {Kind{QkNorm::kNone, true, false}, Kind{QkNorm::kPerHead, true, true}, Kind{QkNorm::kNone, false, true}}) {
    model.config.attention.qk_norm = kind.qk_norm;
    model.config.pre_norm = kind.pre_norm;
    model.config.post_norm = kind.post_norm;
    std::vector<int64_t> measured, estimated;
    for (const int64_t layers : {4, 12}) {
      model.config.num_layers = layers;
      Transformer transformer(model.config, {});
      const auto step = [&] { ForwardBackward(transformer, batch, SupervisedObjective(), 512); };
      step();  // gradients have their memory
      measured.push_back(PeakTensorBytesOf(step));
      estimated.push_back(EstimateMemory(job, model, /*plan=*/nullptr, /*bf16=*/false, /*takes_checkpoints=*/false,
                                         std::vector(layers, kNone))
                              .activations);
    }
    const double share =
        static_cast<double>(measured[1] - measured[0]) / static_cast<double>(estimated[1] - estimated[0]);
    EXPECT_NEAR(share, 1, 0.04);
  }
}

TEST(Describe, Recompute_SaysOfHowManyLayers) {
  EXPECT_EQ(Describe({kNone, kNone}), "");
  EXPECT_EQ(Describe({kAttention, kNone}), "attention of 1 of 2 layers is computed again in backward");
  EXPECT_EQ(Describe({kBlock, kBlock, kAttention}),
            "all of 2 and attention of 1 of 3 layers is computed again in backward");
}

}  // namespace
}  // namespace temper
