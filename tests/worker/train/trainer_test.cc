// SPDX-License-Identifier: Apache-2.0
#include "worker/train/trainer.h"

#include "common/failure.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/train/silent_observer.h"

namespace temper {
namespace {

// Until ranks train together, one of several must not train alone what all were to train.
TEST(TrainerTest, RunTrainJob_OneOfManyRanks_IsRefused) {
  TrainJob job;
  job.world_size = 2;
  SilentObserver observer;
  StopSignal stop;
  const absl::Status status = RunTrainJob(job, observer, stop);
  EXPECT_EQ(CauseOf(status), FailureCause::kLaunch);
  EXPECT_THAT(status.message(), testing::HasSubstr("one of 2 ranks"));
}

}  // namespace
}  // namespace temper
