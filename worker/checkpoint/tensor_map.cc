// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/tensor_map.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace temper {
namespace {

constexpr int64_t kPieceElements = 4 << 20;

}  // namespace

absl::StatusOr<TensorMap> TensorMap::Build(const FamilySpec& family, const ModelConfig& config,
                                           std::span<const WeightView> weights) {
  std::vector<WeightShape> shapes;
  for (const WeightView& weight : weights) shapes.push_back({weight.name, weight.shape()});
  absl::StatusOr<std::vector<TensorBinding>> bindings = BindTensors(family.rules, config, shapes);
  if (!bindings.ok()) return bindings.status();
  TensorMap map;
  map.weights_ = weights;
  map.bindings_ = *std::move(bindings);
  for (size_t i = 0; i < map.bindings_.size(); ++i) map.by_name_.emplace(map.bindings_[i].hf_name, i);
  for (const std::string& name : family.derived_tensors) {
    for (int64_t layer = 0; layer < config.num_layers; ++layer) map.derived_.insert(AtLayer(name, layer));
  }
  return map;
}

const TensorBinding* TensorMap::Find(std::string_view hf_name) const {
  const auto found = by_name_.find(hf_name);
  return found == by_name_.end() ? nullptr : &bindings_[found->second];
}

absl::Status TensorMap::ForEachPiece(const TensorBinding& binding,
                                     const std::function<absl::Status(const WeightView&, int64_t row)>& visit) const {
  int64_t first_row = 0;  // of the part, in the tensor
  for (size_t part : binding.parts) {
    const WeightView& weight = weights_[part];
    const int64_t row_elements =
        std::max<int64_t>(1, weight.parameter->weight.numel() / weight.parameter->weight.size(0));
    const int64_t step = std::max<int64_t>(1, kPieceElements / row_elements);
    for (int64_t row = 0; row < weight.rows; row += step) {
      const WeightView piece{weight.name, weight.parameter, weight.row + row, std::min(step, weight.rows - row)};
      if (absl::Status status = visit(piece, first_row + row); !status.ok()) return status;
    }
    first_row += weight.rows;
  }
  return absl::OkStatus();
}

std::string ShapeText(const std::vector<int64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

}  // namespace temper
