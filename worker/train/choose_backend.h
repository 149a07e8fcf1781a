// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ScalarType.h>

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "worker/checkpoint/native_model.h"
#include "worker/hf_backend/hf_decoder.h"
#include "worker/train/export_verifier.h"
#include "worker/train/train_job.h"

namespace temper {

// A job's model, opened for who trains it.
struct ChosenModel {
  NativeRepository model;
  std::string reason;   // for people
  std::string warning;  // or a sentence that they should read

  // "native" or "hf".
  std::string backend() const { return model.native() ? "native" : "hf"; }
};

// Who trains the job's model. AUTO: temper itself, where it has the family, understands config.json, and computes what
// transformers does (CheckNativeModel); else transformers, and the reason says why. `say` as OpenForTransformers.
//
// NATIVE: what AUTO would pass over is the error. HF errors as OpenForTransformers; under AUTO they come after what the
// native model lacks. A reward model (job.reward) is always native; errors as OpenRewardSource.
absl::StatusOr<ChosenModel> ChooseBackend(const TrainJob& job, at::ScalarType dtype, const ModelVerifier& verifier,
                                          HfDecoder::Say say);

// A job's method.distillation.teacher, opened as NATIVE opens a model, with these errors; absent where it has none.
absl::StatusOr<std::optional<ChosenModel>> ChooseTeacher(const TrainJob& job, at::ScalarType dtype,
                                                         const ModelVerifier& verifier);

}  // namespace temper
