// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/freeze_weights.h"

#include <ATen/ATen.h>
#include <fnmatch.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/checkpoint/tensor_map.h"

namespace temper {
namespace {

// Rows that have a name; the others are padding.
int64_t CountNamedRows(const Parameter& parameter, std::span<const WeightView> weights) {
  int64_t rows = 0;
  for (const WeightView& view : weights) rows += view.parameter == &parameter ? view.rows : 0;
  return rows;
}

void Freeze(Parameter& parameter, std::vector<RowRange> rows, std::span<const WeightView> weights) {
  std::sort(rows.begin(), rows.end(), [](const RowRange& a, const RowRange& b) { return a.row < b.row; });
  // A row has one name in the model, but may have several in the checkpoint (a tied head).
  rows.erase(std::unique(rows.begin(), rows.end(), [](const RowRange& a, const RowRange& b) { return a.row == b.row; }),
             rows.end());
  int64_t frozen = 0;
  for (const RowRange& range : rows) frozen += range.rows;
  if (frozen < CountNamedRows(parameter, weights)) {
    parameter.frozen_rows = std::move(rows);
    return;
  }
  parameter.trainable = false;
  parameter.weight.requires_grad_(false);
}

}  // namespace

absl::Status FreezeWeights(const std::vector<std::string>& patterns, const FamilySpec& family,
                           const ModelConfig& config, std::span<const WeightView> weights) {
  if (patterns.empty()) return absl::OkStatus();
  const auto map = TensorMap::Build(family, config, weights);
  if (!map.ok()) return map.status();
  std::map<Parameter*, std::vector<RowRange>> frozen;
  for (const std::string& pattern : patterns) {
    bool matched = false;
    for (const TensorBinding& binding : map->bindings()) {
      if (fnmatch(pattern.c_str(), binding.hf_name.c_str(), 0) != 0) continue;
      matched = true;
      for (const size_t part : binding.parts) {
        frozen[weights[part].parameter].push_back({weights[part].row, weights[part].rows});
      }
    }
    if (!matched) {
      return absl::InvalidArgumentError(
          absl::StrCat("training.freeze: '", pattern, "' matches no weight of the model; its weights have names like ",
                       map->bindings().front().hf_name, " and ", map->bindings().back().hf_name));
    }
  }
  for (auto& [parameter, rows] : frozen) Freeze(*parameter, std::move(rows), weights);
  const bool any =
      std::any_of(weights.begin(), weights.end(), [](const WeightView& view) { return view.parameter->trainable; });
  if (!any) return absl::InvalidArgumentError("training.freeze: all weights are frozen: nothing is left to train");
  return absl::OkStatus();
}

absl::Status TrainModules(const std::vector<std::string>& hf_modules, const FamilySpec& family,
                          const ModelConfig& config, std::span<const WeightView> weights) {
  if (hf_modules.empty()) return absl::OkStatus();
  const auto tensors = TensorsOfModules(hf_modules, family, config, weights);
  if (!tensors.ok()) return tensors.status();
  std::set<std::pair<Parameter*, int64_t>> trained;  // a part's parameter and first row
  for (const AdapterTensor& tensor : *tensors) {
    for (const WeightView& part : tensor.parts) {
      trained.insert({part.parameter, part.row});
      Parameter& parameter = *part.parameter;
      parameter.trainable = true;
      parameter.weight.requires_grad_(true);
      if (parameter.weight.scalar_type() != at::kFloat) {
        parameter.low = at::zeros(parameter.weight.sizes(), parameter.weight.options().dtype(at::kShort));
      }
    }
  }
  std::map<Parameter*, std::vector<RowRange>> frozen;
  for (const WeightView& part : weights) {
    if (!part.parameter->trainable || trained.contains({part.parameter, part.row})) continue;
    frozen[part.parameter].push_back({part.row, part.rows});
  }
  for (auto& [parameter, rows] : frozen) Freeze(*parameter, std::move(rows), weights);
  return absl::OkStatus();
}

}  // namespace temper
