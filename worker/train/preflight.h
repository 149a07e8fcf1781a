// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "worker/train/export_verifier.h"
#include "worker/train/stop_signal.h"
#include "worker/train/train_job.h"

namespace temper {

// Looks at a job without training: opens model and data as the trainer would, needs no device, loads no weights, and
// tells the observer what it found (OnPreflight). Errors are those that the trainer would have ended with, as far as
// they can be known before; UNIMPLEMENTED for a model whose first layers do not compute what transformers' do, which
// `verifier` is asked for a combination of mechanisms that temper comes with no verdict on. One call a process: it asks
// how much memory the process itself takes.
absl::Status RunPreflight(const TrainJob& job, TrainObserver& observer, const StopSignal& stop,
                          const ModelVerifier& verifier = nullptr);

}  // namespace temper
