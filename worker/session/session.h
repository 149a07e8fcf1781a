// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "worker/train/stop_signal.h"
#include "worker/train/train_job.h"

namespace temper {

// RunTrainJob of worker/train/trainer.h, RunPreflight of worker/train/preflight.h, or a test's stand-in.
using TrainFunction = std::function<absl::Status(const TrainJob&, TrainObserver&, const StopSignal& stop)>;

// The life of a rank: gets its job from the node at the other end of `fd` (taken over), trains or only looks, reports
// all that happens and how it ended. Returns the process's exit code: 0 when the rank did all that it was asked to or
// stopped because it was told to, 1 otherwise.
int RunSession(int fd, const TrainFunction& train, const TrainFunction& preflight);

}  // namespace temper
