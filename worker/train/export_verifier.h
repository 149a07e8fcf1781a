// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace temper {

// Compares what the native model and transformers' own compute from an export: an HF directory, or, where `adapter` is
// not empty, the PEFT directory of that URI on top of one. The verifier (worker/verify) does, but the trainer does not
// know it: it is handed in. Gives what verification.json says of it: {"passed": …, "reasons": […], …}. A status when
// they could not be compared, UNAVAILABLE without Python (or PEFT).
using ExportVerifier =
    std::function<absl::StatusOr<nlohmann::json>(const std::string& model, const std::string& adapter)>;

}  // namespace temper
