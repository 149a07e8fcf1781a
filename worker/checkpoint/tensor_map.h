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
#include "worker/parallel/gather_master.h"
#include "worker/parallel/process_group.h"

namespace temper {

class PendingPiece;

// Whole rows of a tensor on disk, and the weights that they are made of.
struct TensorPiece {
  int64_t row = 0;  // of the tensor
  int64_t rows = 0;
  Layout layout = Layout::kRows;
  std::vector<WeightView> weights;  // one, or the parts of one expert

  // The masters as they lie in the tensor, fp32 [rows, …], contiguous: on rank `to`, and undefined on others, where
  // ranks share the weights (null: they do not). All of them call it.
  PendingPiece StartLoad(ProcessGroup* ranks, int to) const;
  at::Tensor Load(ProcessGroup* ranks = nullptr, int to = 0) const;
  // Sets the masters, as far as they are here. `values`: [rows, …] of the tensor, any floating dtype.
  void Store(const at::Tensor& values) const;
  // Whether any of them are.
  bool IsHere() const;
};

// The masters of a piece on their way to a rank.
class PendingPiece {
 public:
  // Throws CollectiveError.
  at::Tensor Wait();

 private:
  friend struct TensorPiece;
  Layout layout_ = Layout::kRows;
  std::vector<PendingMaster> parts_;
};

// A whole tensor as it lies on disk. `part_of` gives the values of a part, by its index into the weights.
at::Tensor JoinTensor(const TensorBinding& binding, const std::function<at::Tensor(size_t part)>& part_of);

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

  // The weights behind a tensor in pieces of whole rows, from the first row to the last: `visit` gets each piece and
  // ends the walk by returning an error. Pieces are small, so that no one needs a second copy of a large matrix.
  absl::Status ForEachPiece(const TensorBinding& binding,
                            const std::function<absl::Status(const TensorPiece&)>& visit) const;

 private:
  absl::Status ForEachExpert(const TensorBinding& binding,
                             const std::function<absl::Status(const TensorPiece&)>& visit) const;

  std::span<const WeightView> weights_;
  std::vector<TensorBinding> bindings_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::set<std::string, std::less<>> derived_;
};

// "[2, 3]", for messages.
std::string ShapeText(const std::vector<int64_t>& shape);

}  // namespace temper
