// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/load_weights.h"

#include <ATen/ATen.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/checkpoint/mxfp4.h"
#include "worker/checkpoint/tensor_map.h"

namespace temper {
namespace {

constexpr size_t kMaxNamed = 8;  // in one message

bool IsTrainable(std::string_view dtype) { return dtype == "F32" || dtype == "F16" || dtype == "BF16"; }

std::string Some(const std::vector<std::string>& names) {
  if (names.size() <= kMaxNamed) return absl::StrJoin(names, ", ");
  return absl::StrCat(absl::StrJoin(names.begin(), names.begin() + kMaxNamed, ", "), " and ", names.size() - kMaxNamed,
                      " more");
}

// The tensors and the rules must match one to one, in shape and in kind.
absl::Status CheckNamesAndShapes(const HfRepository& repository, const FamilySpec& family, const ModelConfig& config,
                                 const TensorMap& map) {
  std::vector<std::string> missing, surplus, misshapen, untrainable;
  std::set<std::string> claimed_packed;
  for (const TensorBinding& binding : map.bindings()) {
    const RepositoryTensor* tensor = repository.FindTensor(binding.hf_name);
    const std::optional<Mxfp4Tensor> packed = tensor == nullptr ? FindMxfp4(repository, binding.hf_name) : std::nullopt;
    if (packed) {
      for (const RepositoryTensor* claimed : {packed->blocks, packed->scales})
        claimed_packed.insert(claimed->entry.name);
      if (std::string wrong = Mxfp4Mismatch(*packed, binding.hf_shape); !wrong.empty()) misshapen.push_back(wrong);
    } else if (tensor == nullptr) {
      if (!binding.optional_copy) missing.push_back(binding.hf_name);
    } else if (tensor->entry.shape != binding.hf_shape) {
      misshapen.push_back(absl::StrCat(binding.hf_name, " is ", ShapeText(tensor->entry.shape), " instead of ",
                                       ShapeText(binding.hf_shape)));
    } else if (!IsTrainable(tensor->entry.dtype)) {
      untrainable.push_back(absl::StrCat(binding.hf_name, " (", tensor->entry.dtype, ")"));
    }
  }
  for (const RepositoryTensor& tensor : repository.tensors()) {
    const std::string& name = tensor.entry.name;
    if (map.Find(name) == nullptr && !map.IsDerived(name) && !claimed_packed.contains(name)) surplus.push_back(name);
  }
  std::vector<std::string> wrong;
  if (!missing.empty()) {
    wrong.push_back(absl::StrCat("tensors missing: ", Some(missing)));
    if (missing.size() == 1 && missing[0] == "lm_head.weight") {
      wrong.back() += " (if the model uses its embedding as head, config.json must say \"tie_word_embeddings\": true)";
    }
  }
  if (!surplus.empty()) {
    wrong.push_back(absl::StrCat("tensors that ", config.score_head ? family.sequence_classifier : family.architecture,
                                 " with this config.json does not have: ", Some(surplus)));
  }
  if (!misshapen.empty()) wrong.push_back(absl::StrCat("wrong shape for this config.json: ", Some(misshapen)));
  if (!untrainable.empty()) {
    wrong.push_back(absl::StrCat("dtypes that can't be trained (F32, F16 and BF16 can): ", Some(untrainable)));
  }
  if (wrong.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(repository.directory(), ": ", absl::StrJoin(wrong, "; ")));
}

// A head that is said to be the embedding, but stands in the checkpoint with other values, is somebody's training lost.
absl::Status CheckTiedCopies(const HfRepository& repository, const TensorMap& map) {
  for (const TensorBinding& copy : map.bindings()) {
    const RepositoryTensor* tensor = copy.optional_copy ? repository.FindTensor(copy.hf_name) : nullptr;
    if (tensor == nullptr) continue;
    for (const TensorBinding& original : map.bindings()) {
      if (original.optional_copy || original.parts != copy.parts) continue;
      const RepositoryTensor& source = *repository.FindTensor(original.hf_name);
      const absl::StatusOr<at::Tensor> ours = repository.Tensor(*tensor), theirs = repository.Tensor(source);
      if (!ours.ok() || !theirs.ok()) return ours.ok() ? theirs.status() : ours.status();
      const bool equal = tensor->entry.dtype == source.entry.dtype
                             ? BytesOf(*ours) == BytesOf(*theirs)
                             : at::equal(ours->to(at::kFloat), theirs->to(at::kFloat));
      repository.Release(*tensor);
      repository.Release(source);
      if (!equal) {
        return absl::InvalidArgumentError(
            absl::StrCat(repository.directory(), ": config.json says \"tie_word_embeddings\": true, but ", copy.hf_name,
                         " and ", original.hf_name, " differ. Set it to false to keep both, or remove ", copy.hf_name));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTensors(const HfRepository& repository, const FamilySpec& family, const ModelConfig& config,
                          const TensorMap& map) {
  if (absl::Status status = CheckNamesAndShapes(repository, family, config, map); !status.ok()) return status;
  return CheckTiedCopies(repository, map);
}

// An expert at a time, and none that another rank has: there is never more than one unpacked.
absl::Status LoadPacked(const HfRepository& repository, const Mxfp4Tensor& packed, const TensorBinding& binding,
                        const TensorMap& map) {
  const absl::Status status = map.ForEachPiece(binding, [&](const TensorPiece& piece) {
    if (!piece.IsHere()) return absl::OkStatus();
    const absl::StatusOr<at::Tensor> values = UnpackMxfp4(repository, packed, piece.row);
    if (values.ok()) piece.Store(values->unsqueeze(0));
    return values.status();
  });
  repository.Release(*packed.blocks);
  repository.Release(*packed.scales);
  return status;
}

}  // namespace

absl::Status CheckWeights(const HfRepository& repository, const FamilySpec& family, const ModelConfig& config,
                          std::span<const WeightView> weights) {
  const absl::StatusOr<TensorMap> map = TensorMap::Build(family, config, weights);
  return map.ok() ? CheckTensors(repository, family, config, *map) : map.status();
}

absl::Status LoadWeights(const HfRepository& repository, const FamilySpec& family, const ModelConfig& config,
                         std::span<const WeightView> weights) {
  absl::StatusOr<TensorMap> map = TensorMap::Build(family, config, weights);
  if (!map.ok()) return map.status();
  if (absl::Status status = CheckTensors(repository, family, config, *map); !status.ok()) return status;
  for (const TensorBinding& binding : map->bindings()) {
    const auto packed = FindMxfp4(repository, binding.hf_name);
    if (!packed || repository.FindTensor(binding.hf_name) != nullptr) continue;
    if (absl::Status status = LoadPacked(repository, *packed, binding, *map); !status.ok()) return status;
  }
  // In the order of the files, which is how disks like to be read.
  for (const RepositoryTensor& tensor : repository.tensors()) {
    const TensorBinding* binding = map->Find(tensor.entry.name);
    if (binding == nullptr || binding->optional_copy) continue;
    absl::Status status = map->ForEachPiece(*binding, [&](const TensorPiece& piece) {
      if (!piece.IsHere()) return absl::OkStatus();
      const absl::StatusOr<at::Tensor> values = repository.Rows(tensor, piece.row, piece.rows);
      if (values.ok()) piece.Store(*values);
      return values.status();
    });
    if (!status.ok()) return status;
    repository.Release(tensor);
  }
  return absl::OkStatus();
}

}  // namespace temper
