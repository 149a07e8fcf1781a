// SPDX-License-Identifier: Apache-2.0
#include "worker/families/tensor_rule.h"

#include <map>
#include <optional>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

constexpr std::string_view kLayer = "{layer}";
constexpr std::string_view kEmbedding = "embed.weight";
constexpr std::string_view kHead = "lm_head.weight";

class Binder {
 public:
  Binder(std::span<const WeightShape> weights, std::vector<TensorBinding>& bindings)
      : weights_(weights), bindings_(bindings) {
    for (size_t i = 0; i < weights.size(); ++i) by_name_.emplace(weights[i].name, i);
  }

  absl::Status Apply(const TensorRule& rule, int64_t layer) {
    TensorBinding binding{.hf_name = AtLayer(rule.hf_name, layer)};
    for (const std::string& part : rule.parts) {
      const auto weight = by_name_.find(AtLayer(part, layer));
      if (weight != by_name_.end()) binding.parts.push_back(weight->second);
    }
    if (binding.parts.empty()) return absl::OkStatus();  // a bias, say, that this model does without
    if (binding.parts.size() != rule.parts.size()) {
      return absl::InternalError(absl::StrCat("the model has only some parts of ", binding.hf_name));
    }
    for (size_t part : binding.parts) {
      const WeightShape& weight = weights_[part];
      if (owners_.contains(part)) {
        return absl::InternalError(absl::StrCat("two rules want ", weight.name));
      }
      owners_.emplace(part, bindings_.size());
      if (binding.hf_shape.empty()) {
        binding.hf_shape = weight.shape;
        continue;
      }
      if (!std::equal(binding.hf_shape.begin() + 1, binding.hf_shape.end(), weight.shape.begin() + 1,
                      weight.shape.end())) {
        return absl::InternalError(
            absl::StrCat(weight.name, " does not fit below the other rows of ", binding.hf_name));
      }
      binding.hf_shape[0] += weight.shape[0];
    }
    bindings_.push_back(std::move(binding));
    return absl::OkStatus();
  }

  // The head is the embedding's matrix: a checkpoint may repeat it under the head's name.
  absl::Status ApplyTiedHead(const TensorRule& rule) {
    const auto embedding = by_name_.find(kEmbedding);
    if (embedding == by_name_.end()) return absl::InternalError("the model has no embedding to tie its head to");
    bindings_.push_back({.hf_name = rule.hf_name,
                         .hf_shape = weights_[embedding->second].shape,
                         .parts = {embedding->second},
                         .optional_copy = true});
    return absl::OkStatus();
  }

  absl::Status CheckAllOwned() const {
    for (size_t i = 0; i < weights_.size(); ++i) {
      if (!owners_.contains(i)) return absl::InternalError(absl::StrCat("no rule for ", weights_[i].name));
    }
    return absl::OkStatus();
  }

 private:
  std::span<const WeightShape> weights_;
  std::vector<TensorBinding>& bindings_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<size_t, size_t> owners_;  // weight → binding
};

}  // namespace

std::string AtLayer(std::string_view name, int64_t layer) {
  const size_t at = name.find(kLayer);
  if (at == name.npos) return std::string(name);
  std::string text(name.substr(0, at));
  absl::StrAppend(&text, layer);
  text += name.substr(at + kLayer.size());
  return text;
}

absl::StatusOr<std::vector<TensorBinding>> BindTensors(std::span<const TensorRule> rules, const ModelConfig& config,
                                                       std::span<const WeightShape> weights) {
  std::vector<TensorBinding> bindings;
  Binder binder(weights, bindings);
  for (const TensorRule& rule : rules) {
    const bool tied_head = config.tied_head && rule.parts.size() == 1 && rule.parts[0] == kHead;
    const bool per_layer = rule.hf_name.find(kLayer) != std::string::npos;
    absl::Status status = tied_head ? binder.ApplyTiedHead(rule) : absl::OkStatus();
    for (int64_t layer = 0; status.ok() && !tied_head && layer < (per_layer ? config.num_layers : 1); ++layer) {
      status = binder.Apply(rule, layer);
    }
    if (!status.ok()) return status;
  }
  if (absl::Status status = binder.CheckAllOwned(); !status.ok()) return status;
  return bindings;
}

}  // namespace temper
