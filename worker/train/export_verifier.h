// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace temper {

// Compares what the native model and transformers' own compute from an export. The verifier (worker/verify) does, but
// the trainer does not know it: it is handed in. Gives what verification.json says of it: {"passed": …, "reasons": […],
// …}. A status when they could not be compared, UNAVAILABLE without Python.
using ExportVerifier = std::function<absl::StatusOr<nlohmann::json>(const std::string& uri)>;

}  // namespace temper
