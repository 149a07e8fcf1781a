// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace temper {

// `temper-rank verify`, as it was typed.
struct VerifyRequest {
  std::vector<std::string> models;
  // For tests that plant bugs: what the native side loads instead of each model. Empty, or as many as `models`.
  std::vector<std::string> native_models;
  std::string adapter;         // a PEFT directory that is put on each model; empty without
  std::string dtype = "fp32";  // or "bf16"
  bool layers = false;
  bool gradients = false;
  // Above 0: so many layers of each model after the other, each time as a model of their own; for `temper-rank` only.
  int64_t layers_at_a_time = 0;
  std::string output = "table";  // or "json": an object a line for each model
};

// A verdict (worker/verify/verdict.h) for people and for programs.
struct PrintedVerdict {
  bool passed = false;
  std::vector<std::string> reasons;
  std::string table;
  std::string json;
};

// Verifies one model directory; of `request`, models and output are not read. Errors as Verify().
absl::StatusOr<PrintedVerdict> VerifyModel(const std::string& model, const VerifyRequest& request);

// Verifies one model after another and prints each verdict to `out` as it is found, and what kept one from being
// verified to `errors`. Returns the process's exit code: 0 when all passed, 1 when one did not, 2 when one could not be
// compared.
int RunVerify(const VerifyRequest& request, std::ostream& out, std::ostream& errors);

}  // namespace temper
