// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>
#include <string>
#include <vector>

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
  std::string output = "table";  // or "json": an object a line for each model
};

// Verifies one model after another and prints each verdict to `out` as it is found, and what kept one from being
// verified to `errors`. Returns the process's exit code: 0 when all passed, 1 when one did not, 2 when one could not be
// compared.
int RunVerify(const VerifyRequest& request, std::ostream& out, std::ostream& errors);

}  // namespace temper
