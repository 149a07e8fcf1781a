// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/checkpoint/native_model.h"
#include "worker/parallel/process_group.h"
#include "worker/train/train_job.h"
#include "worker/train/training_data.h"

namespace temper {

// How a job's teacher is built: all of it frozen, computed in the model's dtype.
TransformerOptions TeacherOptions(at::ScalarType dtype, at::Device device = at::kCPU);

// INVALID_ARGUMENT when the teacher can't say anything of the job's tokens: an id means another token to it, its
// vocabulary or its positions are too few. FAILED_PRECONDITION when it has no tokenizer. Its weights are not read, but
// what CheckCheckpoint finds is found.
absl::Status CheckTeacher(const TrainJob& job, const NativeRepository& teacher, at::ScalarType dtype,
                          const TrainingData& data);

// In shards where there are ranks, which all call it. Errors as LoadModel.
absl::StatusOr<LoadedModel> LoadTeacher(const NativeRepository& teacher, at::ScalarType dtype, at::Device device,
                                        ProcessGroup* ranks);

}  // namespace temper
