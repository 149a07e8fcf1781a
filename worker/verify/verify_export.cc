// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/verify_export.h"

#include "worker/verify/verifier.h"

namespace temper {

absl::StatusOr<nlohmann::json> VerifyExport(const std::string& model, const std::string& adapter) {
  const absl::StatusOr<Verdict> verdict = Verify({.model = model, .adapter = adapter});
  if (!verdict.ok()) return verdict.status();
  nlohmann::json json = ToJson(*verdict);
  json.erase("model");  // where it lies today says nothing tomorrow
  return json;
}

}  // namespace temper
