// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ScalarType.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace temper {

// For the trainer, which is handed them (worker/train/export_verifier.h). Errors as Verify.

// The verdict on an HF directory in fp32, with a PEFT directory on top of it where that is not empty, as JSON. With
// `layers_at_a_time`, on so many of its layers after the other, each
// time as a model of their own ({"passed": …, "reasons": …, "layers_at_a_time": …, "parts": [a verdict each]}).
absl::StatusOr<nlohmann::json> VerifyExport(const std::string& model, const std::string& adapter = "",
                                            int64_t layers_at_a_time = 0);

// The verdict on as many of a model's first layers as it takes to see all that it does (LeastDepth).
absl::StatusOr<nlohmann::json> VerifyFirstLayers(const std::string& uri, at::ScalarType dtype);

}  // namespace temper
