// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/object_store.h"
#include "worker/checkpoint/adapter_plan.h"
#include "worker/checkpoint/native_model.h"
#include "worker/data/micro_batch.h"
#include "worker/model/trainable_model.h"
#include "worker/train/export_verifier.h"
#include "worker/train/gang.h"
#include "worker/train/stop_signal.h"
#include "worker/train/train_job.h"

namespace temper {

// Fails now, not hours later, when nothing can be written to the job's output, or when another job's files are there.
absl::Status CheckOutput(ObjectStore& store, const TrainJob& job);

// Writes the trained model at JOB/export-eNNNN, proves it and commits it, or leaves nothing behind.
//
// Without adapters it is an HF directory, and the proof, verification.json in it, is threefold: every tensor is its
// master rounded to nearest even, bit for bit; the export, opened as a stranger would, describes the same model; and
// what it computes on `sample` differs from the trained model by no more than that rounding. With adapters (`plan` is
// what the model was built with, null without) it is, as job.output.adapters says, a PEFT adapter directory, whose
// tensors are compared with their masters, or the model with the adapters in it, with that proof and one of the merge;
// where both are asked for, the adapter is in the folder adapter/.
//
// The HF directory and the PEFT directory (on the job's model) also go to `verifier`, if there is one. What that finds
// stands in verification.json, and a warning is logged when it is a difference, or when nothing could be compared; the
// export is committed all the same: its tensors are proved, and they are what the training gave.
//
// CANCELLED, with nothing left behind, when `stop` asks for it before the commit; of a gang, before the last steps.
//
// All ranks of a gang call it: they write together, and none ever holds the whole model. The files are those that one
// rank would write. Rank 0 takes the last steps, from the verifier on, alone; the others return before that, and know
// of the summary the URI only.
absl::StatusOr<ExportSummary> ExportAndProve(ObjectStore& store, const TrainJob& job, const Gang& gang,
                                             const NativeRepository& source, const AdapterPlan* plan,
                                             TrainableModel& model, const MicroBatch& sample, const StopSignal& stop,
                                             TrainObserver& observer, const ExportVerifier& verifier = nullptr);

}  // namespace temper
