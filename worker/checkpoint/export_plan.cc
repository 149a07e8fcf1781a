// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/export_plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "worker/checkpoint/mxfp4.h"

namespace temper {
namespace {

// The bindings whose tensor stands packed in the source, by the names of its blocks; the scales too.
struct PackedTensors {
  std::map<std::string_view, const TensorBinding*> of_blocks;
  std::set<std::string_view> scales;
  bool trained = false;
};

PackedTensors FindPacked(const HfRepository& source, const TensorMap& map, std::span<const WeightView> weights) {
  PackedTensors packed;
  for (const TensorBinding& binding : map.bindings()) {
    if (source.FindTensor(binding.hf_name) != nullptr) continue;
    const std::optional<Mxfp4Tensor> pair = FindMxfp4(source, binding.hf_name);
    if (!pair) continue;
    packed.of_blocks.emplace(pair->blocks->entry.name, &binding);
    packed.scales.insert(pair->scales->entry.name);
    packed.trained |= std::any_of(binding.parts.begin(), binding.parts.end(),
                                  [&](size_t part) { return weights[part].parameter->trainable; });
  }
  return packed;
}

SafetensorsEntry Unpacked(const TensorBinding& binding) {
  SafetensorsEntry entry{.name = binding.hf_name, .dtype = "BF16", .shape = binding.hf_shape};
  entry.end = SafetensorsElementSize(entry.dtype);
  for (const int64_t size : entry.shape) entry.end *= size;
  return entry;
}

}  // namespace

const ExportedTensor* ExportPlan::Find(std::string_view name) const {
  const auto found = by_name.find(name);
  return found == by_name.end() ? nullptr : &tensors[found->second];
}

absl::StatusOr<ExportPlan> PlanExport(const HfRepository& source, const TensorMap& map,
                                      std::span<const WeightView> weights) {
  const PackedTensors packed = FindPacked(source, map, weights);
  ExportPlan plan;
  plan.quantized = !packed.of_blocks.empty() && !packed.trained;
  for (const RepositoryTensor& tensor : source.tensors()) {
    const std::string& name = tensor.entry.name;
    ExportedTensor exported{.entry = tensor.entry, .file = tensor.file, .binding = map.Find(name)};
    const auto blocks = packed.of_blocks.find(name);
    const bool is_packed = blocks != packed.of_blocks.end() || packed.scales.contains(name);
    if (is_packed && packed.trained) {
      if (blocks == packed.of_blocks.end()) continue;  // scales
      exported.binding = blocks->second;
      exported.entry = Unpacked(*exported.binding);
    } else if (exported.binding == nullptr) {
      if (!is_packed && !map.IsDerived(name)) return absl::InternalError(absl::StrCat("no rule claims tensor ", name));
      exported.verbatim = &tensor;
    } else if (exported.binding->hf_shape != tensor.entry.shape) {
      return absl::InternalError(absl::StrCat("tensor ", name, " is ", ShapeText(exported.binding->hf_shape),
                                              " in the model, ", ShapeText(tensor.entry.shape), " in the source"));
    }
    plan.by_name.emplace(exported.entry.name, plan.tensors.size());
    plan.tensors.push_back(std::move(exported));
  }
  return plan;
}

std::string StoredDtype(const HfRepository& repository, const TensorBinding& binding) {
  const RepositoryTensor* stored = repository.FindTensor(binding.hf_name);
  if (stored != nullptr) return stored->entry.dtype;
  return FindMxfp4(repository, binding.hf_name) ? "BF16" : "";
}

}  // namespace temper
