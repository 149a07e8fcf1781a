// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/families/family_spec.h"
#include "worker/model/model_config.h"

namespace temper {

// Every family that temper trains natively.
const std::vector<FamilySpec>& Families();

// The family of a language model's config.json. UNIMPLEMENTED, with the list of supported ones, for an unknown
// architecture; INVALID_ARGUMENT when config.json names none, or a reward model.
absl::StatusOr<const FamilySpec*> FindFamily(const nlohmann::ordered_json& config);

// That of a reward model, or of the language model that is to become one. The same errors; UNIMPLEMENTED also where
// transformers has no reward models of the family.
absl::StatusOr<const FamilySpec*> FindRewardFamily(const nlohmann::ordered_json& config);

// Whether it is a reward model's, of this family.
bool IsRewardModel(const FamilySpec& family, const nlohmann::ordered_json& config);

// The model that a config.json describes. Everything in it was understood, or the status names every key that was not:
// a key of the wrong type or value, a key that nobody reads, a quantized checkpoint.
absl::StatusOr<ModelConfig> ConfigureModel(const FamilySpec& family, const nlohmann::ordered_json& config);

}  // namespace temper
