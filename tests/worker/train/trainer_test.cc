// SPDX-License-Identifier: Apache-2.0
#include "worker/train/trainer.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "common/failure.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/train/silent_observer.h"
#include "worker/train/preflight.h"

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

// Only the program that was built for it can.
TEST(TrainerTest, RunTrainJob_OnAGpuWithoutCuda_SaysWhatToDo) {
  if (c10::impl::hasDeviceGuardImpl(at::kCUDA)) GTEST_SKIP() << "built with CUDA";
  TrainJob job;
  job.device = DeviceKind::kCuda;
  SilentObserver observer;
  StopSignal stop;
  for (const auto& run : {RunPreflight(job, observer, stop, nullptr), RunTrainJob(job, observer, stop)}) {
    EXPECT_EQ(CauseOf(run), FailureCause::kUserInput);
    EXPECT_THAT(run.message(),
                testing::HasSubstr("this temper-rank was built without: configure with -DTEMPER_CUDA=ON"));
  }
}

}  // namespace
}  // namespace temper
