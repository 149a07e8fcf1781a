// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "absl/status/status.h"
#include "worker/checkpoint/hf_repository.h"
#include "worker/families/family_spec.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter.h"

namespace temper {

// What LoadWeights would find wrong. Stores nothing: the weights may be on the device meta. Reads no values but those
// of a tied head that is stored beside the embedding.
absl::Status CheckWeights(const HfRepository& repository, const FamilySpec& family, const ModelConfig& config,
                          std::span<const WeightView> weights);

// Fills the model's weights from a repository, one tensor at a time; there is never a second full copy. Where ranks
// share the weights, each reads what it has of them, and no more of a file than that (but a whole matrix where the file
// has it transposed).
//
// Every weight gets exactly one tensor and every tensor of the repository is claimed by one rule. All that is wrong is
// found before the first value is stored and comes in one status (INVALID_ARGUMENT): tensors missing, surplus, of
// another shape (with both shapes) or of a dtype that can't be trained, a tied head that differs from the embedding.
absl::Status LoadWeights(const HfRepository& repository, const FamilySpec& family, const ModelConfig& config,
                         std::span<const WeightView> weights);

}  // namespace temper
