// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace temper {

// The version of temper's arithmetic. Raised when an operator begins to compute something else: verdicts of another
// version do not count.
inline constexpr int kNumericsVersion = 2;

// How far native model and transformers' own were apart over random models of one family that do the same things;
// temper.v1.FamilyVerdict documents each field.
struct FamilyVerdict {
  std::string family;                   // "llama"
  std::string architecture;             // "LlamaForCausalLM"
  std::vector<std::string> mechanisms;  // worker/model/mechanisms.h
  std::string device;                   // "cpu"
  int numerics_version = 0;
  bool passed = false;
  double max_kl_fp32 = 0;
  double max_gradient_error = 0;
  double bf16_mean_ratio = 0;
  double bf16_max_ratio = 0;
};

// The verdicts that this version of temper comes with (family_verdicts.json), by family. `make test` measures them anew
// (tests/worker/verify/test_verify.py).
const std::vector<FamilyVerdict>& ShippedVerdicts();

// The verdict on models of a family that do these things; null when none was given for this numerics version and
// device.
const FamilyVerdict* FindVerdict(std::string_view family, const std::vector<std::string>& mechanisms,
                                 std::string_view device = "cpu");

}  // namespace temper
