// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/verify_command.h"

#include <algorithm>
#include <filesystem>

#include "worker/verify/verifier.h"

namespace temper {

int RunVerify(const VerifyRequest& request, std::ostream& out, std::ostream& errors) {
  if (!request.native_models.empty() && request.native_models.size() != request.models.size()) {
    errors << "temper-rank: there must be as many native models as models\n";
    return 2;
  }
  int code = 0;
  for (size_t i = 0; i < request.models.size(); ++i) {
    VerifyOptions options{.model = std::filesystem::absolute(request.models[i]).string(),
                          .adapter = request.adapter.empty() ? "" : std::filesystem::absolute(request.adapter).string(),
                          .dtype = request.dtype == "bf16" ? at::kBFloat16 : at::kFloat,
                          .layers = request.layers,
                          .gradients = request.gradients};
    if (!request.native_models.empty()) {
      options.native_model = std::filesystem::absolute(request.native_models[i]).string();
    }
    const absl::StatusOr<Verdict> verdict = Verify(options);
    if (!verdict.ok()) {
      errors << "temper-rank: " << verdict.status().message() << std::endl;
      code = 2;
      continue;
    }
    if (request.output == "json") {
      out << ToJson(*verdict).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
    } else {
      PrintTable(*verdict, out);
    }
    code = std::max(code, verdict->passed() ? 0 : 1);
  }
  return code;
}

}  // namespace temper
