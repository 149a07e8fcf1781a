// SPDX-License-Identifier: Apache-2.0
#include "client/command/training_progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper::command {
namespace {

v1::StepMetrics Step(int64_t step, double seconds) {
  v1::StepMetrics metrics;
  metrics.set_step(step);
  metrics.set_total_steps(10);
  metrics.set_tokens(1000);
  metrics.set_seconds(seconds);
  metrics.set_loss(1.25);
  metrics.set_grad_norm(0.5);
  metrics.set_learning_rate(2e-4);
  metrics.set_mfu(0.234);
  return metrics;
}

TEST(TrainingProgress, NoStep_KnowsNothing) {
  TrainingProgress progress;
  EXPECT_EQ(progress.remaining(), absl::InfiniteDuration());
  EXPECT_EQ(progress.tokens_per_second(), 0);
}

TEST(TrainingProgress, EvenSteps_GivePaceAndRemainingTime) {
  TrainingProgress progress;
  for (int i = 1; i <= 4; ++i) progress.Add(Step(i, 2));
  EXPECT_DOUBLE_EQ(progress.tokens_per_second(), 500);
  EXPECT_EQ(absl::ToInt64Milliseconds(progress.remaining()), 12'000);
  EXPECT_EQ(progress.Line(), "[#########...............]  4/10  loss 1.2500 ▁▁▁▁  500.0 tokens/s  MFU 23.4%  ETA 12s");
}

TEST(TrainingProgress, PaceChanges_NewStepsCountMore) {
  TrainingProgress progress;
  for (int i = 1; i <= 3; ++i) progress.Add(Step(i, 4));
  for (int i = 4; i <= 9; ++i) progress.Add(Step(i, 1));
  EXPECT_GT(progress.tokens_per_second(), 450);
  EXPECT_LT(progress.tokens_per_second(), 1000);
}

TEST(TrainingProgress, RestartedGang_ForgetsTheOldPace) {
  TrainingProgress progress;
  for (int i = 1; i <= 5; ++i) progress.Add(Step(i, 100));
  progress.Add(Step(1, 1));
  EXPECT_EQ(absl::ToInt64Seconds(progress.remaining()), 9);
}

TEST(StepText, HasTheFigures) {
  EXPECT_EQ(StepText(Step(4, 2)), "step 4/10  loss 1.2500  grad_norm 0.5  lr 2.00e-04  500.0 tokens/s  MFU 23.4%");
}

TEST(StepText, HasWhatTheMethodSays) {
  const auto text = [](const std::string& value, const std::string& share) {
    v1::StepMetrics step = Step(4, 2);
    (*step.mutable_objective())[value] = 0.1234;
    (*step.mutable_objective())[share] = 0.75;
    return StepText(step);
  };
  EXPECT_THAT(text("rewards/margins", "rewards/accuracies"),
              testing::HasSubstr("loss 1.2500  margin 0.123  accuracy 75.0%  grad_norm"));
  EXPECT_THAT(text("margin", "accuracy"), testing::HasSubstr("  margin 0.123  accuracy 75.0%  "));
  EXPECT_THAT(text("distillation/divergence", "distillation/agreement"),
              testing::HasSubstr("  divergence 0.123  agreement 75.0%  "));
}

}  // namespace
}  // namespace temper::command
