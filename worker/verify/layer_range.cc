// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/layer_range.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "worker/families/families.h"

namespace temper {
namespace {

// The tensor's name in the model of the range; nothing when it belongs to another layer.
std::optional<std::string> NameInRange(std::string_view name, LayerRange range) {
  std::vector<std::string> parts = absl::StrSplit(std::string(name), '.');
  const auto layers = std::find(parts.begin(), parts.end(), "layers");
  int64_t layer = 0;
  if (layers == parts.end() || layers + 1 == parts.end() || !absl::SimpleAtoi(layers[1], &layer)) {
    return std::string(name);
  }
  if (layer < range.begin || layer >= range.begin + range.count) return std::nullopt;
  layers[1] = absl::StrCat(layer - range.begin);
  return absl::StrJoin(parts, ".");
}

}  // namespace

std::vector<LayerRange> SplitLayers(int64_t num_layers, int64_t at_a_time) {
  std::vector<LayerRange> parts;
  for (int64_t begin = 0; begin < num_layers; begin += at_a_time) {
    parts.push_back({begin, std::min(at_a_time, num_layers - begin)});
  }
  return parts;
}

nlohmann::ordered_json ConfigOfLayers(nlohmann::ordered_json config, LayerRange range) {
  config["num_hidden_layers"] = range.count;
  for (const char* key : {"layer_types", "no_rope_layers"}) {  // one a layer
    const auto list = config.find(key);
    if (list == config.end() || !list->is_array()) continue;
    nlohmann::ordered_json kept = nlohmann::ordered_json::array();
    for (int64_t i = 0; i < range.count && range.begin + i < static_cast<int64_t>(list->size()); ++i) {
      kept.push_back((*list)[range.begin + i]);
    }
    *list = std::move(kept);
  }
  const auto dense = config.find("mlp_only_layers");  // indices
  if (dense != config.end() && dense->is_array()) {
    nlohmann::ordered_json kept = nlohmann::ordered_json::array();
    for (const auto& layer : *dense) {
      if (!layer.is_number_integer()) continue;
      const int64_t index = layer.get<int64_t>() - range.begin;
      if (index >= 0 && index < range.count) kept.push_back(index);
    }
    *dense = std::move(kept);
  }
  return config;
}

absl::StatusOr<NativeRepository> OpenLayers(const std::string& model, LayerRange range) {
  absl::StatusOr<NativeRepository> native = OpenNativeRepository(model);
  if (!native.ok() || range.count == 0) return native;
  if (range.begin < 0 || range.begin + range.count > native->config.num_layers) {
    return absl::OutOfRangeError(absl::StrCat(model, " has ", native->config.num_layers, " layers"));
  }
  const ModelConfig whole = native->config;
  auto config = ConfigureModel(*native->family, ConfigOfLayers(native->repository->config(), range));
  if (!config.ok()) return config.status();
  native->config = *std::move(config);
  for (int64_t i = 0; i < range.count; ++i) {
    if (native->config.layer(i) == whole.layer(range.begin + i)) continue;
    return absl::UnimplementedError(
        absl::StrCat(model, ": layer ", range.begin + i, " would be of another kind without those before it"));
  }
  native->repository->Rename([range](std::string_view name) { return NameInRange(name, range); });
  return native;
}

}  // namespace temper
