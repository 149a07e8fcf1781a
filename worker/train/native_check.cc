// SPDX-License-Identifier: Apache-2.0
#include "worker/train/native_check.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/family_verdicts.h"
#include "worker/model/mechanisms.h"

namespace temper {

absl::StatusOr<NativeCheck> CheckNativeModel(const std::string& uri, const FamilySpec& family,
                                             const ModelConfig& config, at::ScalarType dtype,
                                             const ModelVerifier& verifier) {
  const std::vector<std::string> mechanisms = Mechanisms(config);
  const FamilyVerdict* shipped = FindVerdict(family.name, mechanisms);
  if (shipped != nullptr && shipped->passed) {
    return NativeCheck{absl::StrFormat("temper's own %s computes what transformers' does (KL at most %.1e in tests)",
                                       family.architecture, shipped->max_kl_fp32),
                       ""};
  }
  const std::string which = absl::StrCat(family.architecture, " with ", absl::StrJoin(mechanisms, ", "));
  const auto unknown = [&](const std::string& why) {
    return NativeCheck{
        absl::StrCat("there is a native ", family.architecture, ", but it was not compared with transformers'"),
        absl::StrCat("temper comes with no verdict on ", which,
                     ", and its first layers were not compared with "
                     "transformers' own: ",
                     why, ". `temper verify ", uri, "` compares all of it")};
  };
  if (verifier == nullptr) return unknown("there is no verifier");

  std::vector<at::ScalarType> dtypes = {at::kFloat};
  if (dtype != at::kFloat) dtypes.push_back(dtype);
  for (const at::ScalarType each : dtypes) {
    const auto verdict = verifier(uri, each);
    if (!verdict.ok()) return unknown(std::string(verdict.status().message()));
    if (verdict->value("passed", false)) continue;
    return absl::UnimplementedError(
        absl::StrCat("temper's own ", which, " does not compute what transformers' does: ",
                     absl::StrJoin(verdict->value("reasons", std::vector<std::string>()), "; "), ". `temper verify ",
                     uri, " --layers` shows where they part: please report what it prints"));
  }
  return NativeCheck{absl::StrCat("temper's own ", which, " computes what transformers' does in the first layers"), ""};
}

}  // namespace temper
