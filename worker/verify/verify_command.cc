// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/verify_command.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "worker/verify/verifier.h"

namespace temper {
namespace {

// Of a path or a URI.
std::string Absolute(const std::string& place) {
  return place.find("://") == place.npos ? std::filesystem::absolute(place).string() : place;
}

PrintedVerdict Printed(const Verdict& verdict) {
  std::ostringstream table;
  PrintTable(verdict, table);
  return {.passed = verdict.passed(),
          .reasons = verdict.reasons,
          .table = table.str(),
          .json = ToJson(verdict).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)};
}

absl::StatusOr<PrintedVerdict> VerifyModel(const std::string& model, const std::string& native_model,
                                           const VerifyRequest& request, LayerRange layers) {
  const absl::StatusOr<Verdict> verdict = Verify({.model = model,
                                                  .adapter = request.adapter.empty() ? "" : Absolute(request.adapter),
                                                  .native_model = native_model,
                                                  .dtype = request.dtype == "bf16" ? at::kBFloat16 : at::kFloat,
                                                  .compare_layers = request.layers,
                                                  .compare_gradients = request.gradients,
                                                  .layers = layers});
  if (!verdict.ok()) return verdict.status();
  return Printed(*verdict);
}

// The whole model, or its layers part by part.
absl::StatusOr<std::vector<LayerRange>> PartsOf(const std::string& model, int64_t layers_at_a_time) {
  if (layers_at_a_time == 0) return std::vector<LayerRange>(1);
  const absl::StatusOr<NativeRepository> native = OpenNativeRepository(model);
  if (!native.ok()) return native.status();
  return SplitLayers(native->config.num_layers, layers_at_a_time);
}

}  // namespace

absl::StatusOr<PrintedVerdict> VerifyModel(const std::string& model, const VerifyRequest& request) {
  return VerifyModel(model, /*native_model=*/"", request, {});
}

int RunVerify(const VerifyRequest& request, std::ostream& out, std::ostream& errors) {
  if (!request.native_models.empty() && request.native_models.size() != request.models.size()) {
    errors << "temper-rank: there must be as many native models as models\n";
    return 2;
  }
  int code = 0;
  for (size_t i = 0; i < request.models.size(); ++i) {
    const std::string model = Absolute(request.models[i]);
    const std::string native = request.native_models.empty() ? "" : Absolute(request.native_models[i]);
    const absl::StatusOr<std::vector<LayerRange>> parts = PartsOf(model, request.layers_at_a_time);
    if (!parts.ok()) {
      errors << "temper-rank: " << parts.status().message() << std::endl;
      code = 2;
      continue;
    }
    for (const LayerRange& layers : *parts) {
      const absl::StatusOr<PrintedVerdict> verdict = VerifyModel(model, native, request, layers);
      if (!verdict.ok()) {
        errors << "temper-rank: " << verdict.status().message() << std::endl;
        code = 2;
        continue;
      }
      out << (request.output == "json" ? verdict->json + "\n" : verdict->table) << std::flush;
      code = std::max(code, verdict->passed ? 0 : 1);
    }
  }
  return code;
}

}  // namespace temper
