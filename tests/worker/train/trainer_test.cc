// SPDX-License-Identifier: Apache-2.0
#include "worker/train/trainer.h"

#include "common/failure.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/train/silent_observer.h"

namespace temper {
namespace {

// It must not train alone what all were to train.
TEST(TrainerTest, RunTrainJob_AloneForAJobOfSeveralRanks_IsRefused) {
  TrainJob job;
  job.ranks = 2;
  SilentObserver observer;
  StopSignal stop;
  const absl::Status status = RunTrainJob(job, observer, stop);
  EXPECT_EQ(CauseOf(status), FailureCause::kLaunch);
  EXPECT_THAT(status.message(), testing::HasSubstr("for 2 ranks, but this temper-rank was started as one of 1"));
}

}  // namespace
}  // namespace temper
