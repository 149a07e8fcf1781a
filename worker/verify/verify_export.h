// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace temper {

// The verdict on an HF directory in fp32, with a PEFT directory on top of it where that is not empty, as JSON. Errors
// as Verify. For the trainer, which is handed it (worker/train/export_verifier.h).
absl::StatusOr<nlohmann::json> VerifyExport(const std::string& model, const std::string& adapter);

}  // namespace temper
