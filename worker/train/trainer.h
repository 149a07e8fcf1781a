// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "worker/train/export_verifier.h"
#include "worker/train/stop_signal.h"
#include "worker/train/train_job.h"

namespace temper {

// Trains: reads the data and the model (or the newest checkpoint that is whole), takes the steps, writes checkpoints,
// and writes and proves the export. This is the barrier between the exceptions of the model's code and absl::Status.
//
// Returns OK when the export is committed; CANCELLED when `stop` asked for it: between two micro-batches, or, when a
// checkpoint is wanted, after the step, with the checkpoint committed. Any other status carries a FailureCause
// (common/failure.h) and says what was wrong, where, and what to do. Call it once per process: it sets the number of
// torch's threads. Without a `verifier` exports are not compared with transformers' model.
//
// With a `job.rendezvous`, as one rank of a gang, all of which are called with the same job: each loads, trains and
// writes its shards, and a rank that is missed ends the others (UNAVAILABLE, RANK_LOST). `stop` of any rank stops all
// of them after the same step. Rank 0's return is the job's: the others return when they are no longer needed for its
// export. Each observer gets what its own rank sees; exports and checkpoints are rank 0's to tell.
absl::Status RunTrainJob(const TrainJob& job, TrainObserver& observer, const StopSignal& stop,
                         const Verifiers& verifiers = {});

}  // namespace temper
