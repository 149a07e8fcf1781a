// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/object_store.h"
#include "worker/model/trainable_model.h"
#include "worker/parallel/process_group.h"
#include "worker/train/gang.h"
#include "worker/train/stop_signal.h"
#include "worker/train/train_job.h"
#include "worker/train/training_data.h"

namespace temper {

// Whether the job compares the model with what it is when training begins, and can't have that by leaving its adapters
// away. Each sample's log-probabilities under it are then computed once, before the first step, and stored with the
// job; no second model is ever held:
//
//   JOB/reference-eNNNN/logprobs.safetensors   a publication; F32 `training` and `validation`: of the scored tokens of
//                                              all samples, in the order of the data; metadata `digest`: of what they
//                                              belong to, the model's URIs and every token
bool NeedsReferencePass(const TrainJob& job);

// Gives the data what an earlier gang of the job has stored, digests checked. False when there is none that is whole
// and belongs to this model and data; the observer is told of those that are not. All ranks call it and get the same.
absl::StatusOr<bool> LoadReference(const ObjectStore& store, const TrainJob& job, TrainingData& data,
                                   ProcessGroup* ranks, TrainObserver& observer);

// One forward pass of `model`, as it is when training begins, over all samples: stores the result, and gives it to the
// data. CANCELLED when `stop` asks for it. All ranks call it, each for its share of the rows.
absl::Status TakeReferencePass(ObjectStore& store, const TrainJob& job, const Gang& gang, TrainableModel& model,
                               TrainingData& data, const StopSignal& stop, TrainObserver& observer);

}  // namespace temper
