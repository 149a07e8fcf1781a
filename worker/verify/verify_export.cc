// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/verify_export.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/model/mechanisms.h"
#include "worker/verify/verifier.h"

namespace temper {
namespace {

absl::StatusOr<nlohmann::json> VerifyLayers(const std::string& uri, LayerRange layers,
                                            at::ScalarType dtype = at::kFloat, const std::string& adapter = "") {
  const absl::StatusOr<Verdict> verdict = Verify({.model = uri, .adapter = adapter, .dtype = dtype, .layers = layers});
  if (!verdict.ok()) return verdict.status();
  nlohmann::json json = ToJson(*verdict);
  json.erase("model");  // where it lies today says nothing tomorrow
  return json;
}

}  // namespace

absl::StatusOr<nlohmann::json> VerifyExport(const std::string& model, const std::string& adapter,
                                            int64_t layers_at_a_time) {
  if (layers_at_a_time == 0) return VerifyLayers(model, {}, at::kFloat, adapter);
  const absl::StatusOr<NativeRepository> native = OpenNativeRepository(model);
  if (!native.ok()) return native.status();
  std::vector<std::string> reasons;
  nlohmann::json parts = nlohmann::json::array();
  for (const LayerRange& layers : SplitLayers(native->config.num_layers, layers_at_a_time)) {
    absl::StatusOr<nlohmann::json> verdict = VerifyLayers(model, layers);
    if (!verdict.ok()) return verdict.status();
    for (const auto& reason : verdict->at("reasons")) {
      reasons.push_back(absl::StrCat("from layer ", layers.begin, " on: ", reason.get<std::string>()));
    }
    parts.push_back(*std::move(verdict));
  }
  return nlohmann::json{
      {"passed", reasons.empty()}, {"reasons", reasons}, {"layers_at_a_time", layers_at_a_time}, {"parts", parts}};
}

absl::StatusOr<nlohmann::json> VerifyFirstLayers(const std::string& uri, at::ScalarType dtype) {
  const absl::StatusOr<NativeRepository> native = OpenNativeRepository(uri);
  if (!native.ok()) return native.status();
  const int64_t depth = LeastDepth(native->config);
  return VerifyLayers(uri, {0, depth < native->config.num_layers ? depth : 0}, dtype);
}

}  // namespace temper
