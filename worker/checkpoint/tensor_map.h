// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/families/family_spec.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter.h"

namespace temper {

// The tensors that a checkpoint of a model has, by their HF names, and the weights behind them. Load, export and proof
// all go by this one map.
class TensorMap {
 public:
  // `weights` must outlive the map. Errors as BindTensors.
  static absl::StatusOr<TensorMap> Build(const FamilySpec& family, const ModelConfig& config,
                                         std::span<const WeightView> weights);

  const std::vector<TensorBinding>& bindings() const { return bindings_; }
  // Null when no rule claims the name.
  const TensorBinding* Find(std::string_view hf_name) const;
  // A tensor that follows from config.json and has no weights behind it (FamilySpec::derived_tensors).
  bool IsDerived(std::string_view hf_name) const { return derived_.contains(hf_name); }

  // The weights behind a tensor in pieces of whole rows, from the first row to the last: `visit` gets each piece, with
  // where its rows begin in the tensor, and ends the walk by returning an error. Pieces are small, so that no one needs
  // a second copy of a large matrix.
  absl::Status ForEachPiece(const TensorBinding& binding,
                            const std::function<absl::Status(const WeightView&, int64_t row)>& visit) const;

 private:
  std::span<const WeightView> weights_;
  std::vector<TensorBinding> bindings_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::set<std::string, std::less<>> derived_;
};

// "[2, 3]", for messages.
std::string ShapeText(const std::vector<int64_t>& shape);

}  // namespace temper
