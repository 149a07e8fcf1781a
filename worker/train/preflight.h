// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "worker/train/stop_signal.h"
#include "worker/train/train_job.h"

namespace temper {

// Looks at a job without training: opens model and data as the trainer would, needs no device, loads no weights, and
// tells the observer what it found (OnPreflight). Errors are those that the trainer would have ended with, as far as
// they can be known before. One call a process: it asks how much memory the process itself takes.
absl::Status RunPreflight(const TrainJob& job, TrainObserver& observer, const StopSignal& stop);

}  // namespace temper
