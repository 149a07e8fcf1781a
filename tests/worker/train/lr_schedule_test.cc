// SPDX-License-Identifier: Apache-2.0
#include "worker/train/lr_schedule.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

TrainingOptions Options(LearningRateSchedule schedule, int64_t warmup, double floor = 0) {
  TrainingOptions options;
  options.learning_rate = 1.0;
  options.schedule = schedule;
  options.warmup_steps = warmup;
  options.final_learning_rate_ratio = floor;
  return options;
}

TEST(LearningRate, Warmup_RisesLinearlyToThePeak) {
  const TrainingOptions options = Options(LearningRateSchedule::kCosine, 4);
  EXPECT_DOUBLE_EQ(LearningRate(options, 1, 20), 0.25);
  EXPECT_DOUBLE_EQ(LearningRate(options, 4, 20), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(options, 5, 20), 1.0);
}

TEST(LearningRate, Linear_FallsByEqualSteps) {
  const TrainingOptions options = Options(LearningRateSchedule::kLinear, 0);
  EXPECT_DOUBLE_EQ(LearningRate(options, 1, 4), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(options, 3, 4), 0.5);
  EXPECT_DOUBLE_EQ(LearningRate(options, 4, 4), 0.25);
}

TEST(LearningRate, Cosine_IsHalfwayInTheMiddle) {
  const TrainingOptions options = Options(LearningRateSchedule::kCosine, 0, 0.2);
  EXPECT_DOUBLE_EQ(LearningRate(options, 6, 10), 0.6);
  EXPECT_GT(LearningRate(options, 10, 10), 0.2);
}

TEST(LearningRate, Constant_StaysAtThePeak) {
  EXPECT_DOUBLE_EQ(LearningRate(Options(LearningRateSchedule::kConstant, 2), 9, 10), 1.0);
}

TEST(LearningRate, WarmupStableDecay_FallsInTheLastSteps) {
  TrainingOptions options = Options(LearningRateSchedule::kWarmupStableDecay, 2, 0.1);
  options.decay_ratio = 0.25;
  EXPECT_DOUBLE_EQ(LearningRate(options, 1, 16), 0.5);
  EXPECT_DOUBLE_EQ(LearningRate(options, 3, 16), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(options, 13, 16), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(options, 15, 16), 0.55);
  EXPECT_DOUBLE_EQ(LearningRate(options, 16, 16), 0.325);
}

TEST(LearningRate, WarmupLongerThanTheRun_NeverReachesThePeak) {
  EXPECT_DOUBLE_EQ(LearningRate(Options(LearningRateSchedule::kCosine, 100), 10, 10), 0.1);
}

TEST(WarmupSteps, Unset_IsThreePercentRoundedDown) {
  TrainingOptions options;
  EXPECT_EQ(WarmupSteps(options, 100), 3);
  EXPECT_EQ(WarmupSteps(options, 30), 0);
}

}  // namespace
}  // namespace temper
