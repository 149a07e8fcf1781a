// SPDX-License-Identifier: Apache-2.0
#include "common/family_verdicts.h"

#include <nlohmann/json.hpp>

#include "family_verdicts_json.h"

namespace temper {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(FamilyVerdict, family, architecture, mechanisms, device, numerics_version, passed,
                                   max_kl_fp32, max_gradient_error, bf16_mean_ratio, bf16_max_ratio)

const std::vector<FamilyVerdict>& ShippedVerdicts() {
  // It is part of the build: that it cannot be read is a bug that the first test finds.
  static const auto verdicts = nlohmann::json::parse(kFamilyVerdictsJson).get<std::vector<FamilyVerdict>>();
  return verdicts;
}

const FamilyVerdict* FindVerdict(std::string_view family, const std::vector<std::string>& mechanisms,
                                 std::string_view device) {
  for (const FamilyVerdict& verdict : ShippedVerdicts()) {
    if (verdict.family == family && verdict.mechanisms == mechanisms && verdict.device == device &&
        verdict.numerics_version == kNumericsVersion) {
      return &verdict;
    }
  }
  return nullptr;
}

}  // namespace temper
