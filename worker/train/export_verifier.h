// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace temper {

// What is to be compared: an HF directory, or, where `adapter` is not empty, that PEFT directory on top of one.
struct VerifiedExport {
  std::string model;
  std::string adapter;
  // So many layers are in memory at a time; 0: all. Not with an adapter.
  int64_t layers_at_a_time = 0;
};

// Compares what the native model and transformers' own compute from an export. The verifier (worker/verify) does, but
// the trainer does not know it: it is handed in. Gives what verification.json says of it: {"passed": …, "reasons": […],
// …}. A status when they could not be compared, UNAVAILABLE without Python (or PEFT).
using ExportVerifier = std::function<absl::StatusOr<nlohmann::json>(const VerifiedExport& exported)>;

// Compares the first layers of a model that no verdict was shipped for (common/family_verdicts.h), computed in `dtype`.
// The rest is as above.
using ModelVerifier = std::function<absl::StatusOr<nlohmann::json>(const std::string& uri, at::ScalarType dtype)>;

// Null: nobody can compare.
struct Verifiers {
  ExportVerifier exported = nullptr;
  ModelVerifier model = nullptr;
};

}  // namespace temper
