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

// The family of a config.json. UNIMPLEMENTED, with the list of supported ones, for an unknown architecture;
// INVALID_ARGUMENT when config.json names none.
absl::StatusOr<const FamilySpec*> FindFamily(const nlohmann::ordered_json& config);

// The model that a config.json describes. Everything in it was understood, or the status names every key that was not:
// a key of the wrong type or value, a key that nobody reads, a quantized checkpoint.
absl::StatusOr<ModelConfig> ConfigureModel(const FamilySpec& family, const nlohmann::ordered_json& config);

}  // namespace temper
