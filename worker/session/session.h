// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "worker/train/stop_signal.h"
#include "worker/train/train_job.h"
#include "worker/verify/verify_command.h"

namespace temper {

// RunTrainJob of worker/train/trainer.h, RunPreflight of worker/train/preflight.h, or a test's stand-in.
using TrainFunction = std::function<absl::Status(const TrainJob&, TrainObserver&, const StopSignal& stop)>;

// VerifyModel of worker/verify/verify_command.h, or a test's stand-in.
using VerifyFunction = std::function<absl::StatusOr<PrintedVerdict>(const std::string& model, const VerifyRequest&)>;

// What a rank may be asked to do.
struct RankTasks {
  TrainFunction train;
  TrainFunction preflight;
  VerifyFunction verify;
  // What is to be told of a hang beside the stacks of all threads: what GPUs wait for. Empty: nothing.
  std::function<std::string()> collectives = {};
};

// The life of a rank: gets its job from the node at the other end of `fd` (taken over), trains or only looks, reports
// all that happens and how it ended. Returns the process's exit code: 0 when the rank did all that it was asked to or
// stopped because it was told to, 1 otherwise.
int RunSession(int fd, const RankTasks& tasks);

}  // namespace temper
