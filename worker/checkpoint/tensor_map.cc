// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/tensor_map.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace temper {
namespace {

constexpr int64_t kPieceElements = 4 << 20;

// Values of the parts of rows, or of one expert, as they lie on disk.
at::Tensor JoinParts(Layout layout, const std::vector<at::Tensor>& parts) {
  if (layout == Layout::kRows) return parts.size() == 1 ? parts.front() : at::cat(parts);
  const at::Tensor outputs = at::stack(parts, 1).flatten(0, 1);
  return (outputs.dim() == 2 ? outputs.t() : outputs).unsqueeze(0);
}

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

at::Tensor JoinTensor(const TensorBinding& binding, const std::function<at::Tensor(size_t part)>& part_of) {
  const bool experts = binding.layout == Layout::kExperts;
  const size_t step = experts ? binding.parts_per_expert : binding.parts.size();
  std::vector<at::Tensor> pieces;
  for (size_t first = 0; first < binding.parts.size(); first += step) {
    std::vector<at::Tensor> parts;
    for (size_t i = 0; i < step; ++i) parts.push_back(part_of(binding.parts[first + i]));
    pieces.push_back(JoinParts(binding.layout, parts));
  }
  return at::cat(pieces);
}

at::Tensor PendingPiece::Wait() {
  std::vector<at::Tensor> parts;
  for (PendingMaster& part : parts_) parts.push_back(part.Wait());
  return parts.front().defined() ? JoinParts(layout_, parts).contiguous() : at::Tensor();
}

PendingPiece TensorPiece::StartLoad(ProcessGroup* ranks, int to) const {
  PendingPiece piece;
  piece.layout_ = layout;
  for (const WeightView& weight : weights) piece.parts_.push_back(StartGatherMaster(weight, ranks, to));
  return piece;
}

at::Tensor TensorPiece::Load(ProcessGroup* ranks, int to) const { return StartLoad(ranks, to).Wait(); }

bool TensorPiece::IsHere() const { return std::any_of(weights.begin(), weights.end(), HasMaster); }

void TensorPiece::Store(const at::Tensor& values) const {
  if (layout == Layout::kRows) return StoreMaster(weights.front(), values);
  const at::Tensor expert = values.squeeze(0);
  const auto parts = static_cast<int64_t>(weights.size());
  const at::Tensor outputs = (expert.dim() == 2 ? expert.t() : expert).unflatten(0, {-1, parts});
  for (int64_t part = 0; part < parts; ++part) StoreMaster(weights[part], outputs.select(1, part));
}

absl::Status TensorMap::ForEachExpert(const TensorBinding& binding,
                                      const std::function<absl::Status(const TensorPiece&)>& visit) const {
  for (size_t first = 0; first < binding.parts.size(); first += binding.parts_per_expert) {
    TensorPiece piece{static_cast<int64_t>(first / binding.parts_per_expert), 1, binding.layout, {}};
    for (size_t i = 0; i < binding.parts_per_expert; ++i) piece.weights.push_back(weights_[binding.parts[first + i]]);
    if (absl::Status status = visit(piece); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status TensorMap::ForEachPiece(const TensorBinding& binding,
                                     const std::function<absl::Status(const TensorPiece&)>& visit) const {
  if (binding.layout == Layout::kExperts) return ForEachExpert(binding, visit);
  int64_t first_row = 0;  // of the part, in the tensor
  for (size_t part : binding.parts) {
    const WeightView& weight = weights_[part];
    const int64_t row_elements =
        std::max<int64_t>(1, weight.parameter->weight.numel() / weight.parameter->weight.size(0));
    const int64_t step = std::max<int64_t>(1, kPieceElements / row_elements);
    for (int64_t row = 0; row < weight.rows; row += step) {
      const int64_t rows = std::min(step, weight.rows - row);
      const TensorPiece piece{
          first_row + row, rows, binding.layout, {WeightView{weight.name, weight.parameter, weight.row + row, rows}}};
      if (absl::Status status = visit(piece); !status.ok()) return status;
    }
    first_row += weight.rows;
  }
  return absl::OkStatus();
}

std::string ShapeText(const std::vector<int64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

}  // namespace temper
