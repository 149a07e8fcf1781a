// SPDX-License-Identifier: Apache-2.0
#include "worker/families/tensor_rule.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace temper {
namespace {

constexpr std::string_view kLayer = "{layer}";
constexpr std::string_view kExpert = "{expert}";
constexpr std::string_view kEmbedding = "embed.weight";
constexpr std::string_view kHead = "lm_head.weight";

class Binder {
 public:
  Binder(std::span<const WeightShape> weights, std::vector<TensorBinding>& bindings)
      : weights_(weights), bindings_(bindings) {
    for (size_t i = 0; i < weights.size(); ++i) by_name_.emplace(weights[i].name, i);
  }

  absl::Status Apply(const TensorRule& rule, int64_t layer, int64_t expert, int64_t num_experts) {
    TensorBinding binding{
        .hf_name = AtLayer(rule.hf_name, layer, expert), .layout = rule.layout, .parts_per_expert = rule.parts.size()};
    const bool stacked = rule.layout == Layout::kExperts;
    for (int64_t e = stacked ? 0 : expert; e < (stacked ? num_experts : expert + 1); ++e) {
      for (const std::string& part : rule.parts) {
        const auto weight = by_name_.find(AtLayer(part, layer, e));
        if (weight != by_name_.end()) binding.parts.push_back(weight->second);
      }
    }
    if (binding.parts.empty()) return absl::OkStatus();  // a bias, say, that this model does without
    if (binding.parts.size() != rule.parts.size() * (stacked ? num_experts : 1)) {
      return absl::InternalError(absl::StrCat("the model has only some parts of ", binding.hf_name));
    }
    for (size_t part : binding.parts) {
      if (!owners_.emplace(part, bindings_.size()).second) {
        return absl::InternalError(absl::StrCat("two rules want ", weights_[part].name));
      }
    }
    const absl::Status status = stacked ? ShapeOfExperts(num_experts, binding) : ShapeOfRows(binding);
    if (status.ok()) bindings_.push_back(std::move(binding));
    return status;
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
  absl::Status ShapeOfRows(TensorBinding& binding) const {
    for (size_t part : binding.parts) {
      const WeightShape& weight = weights_[part];
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
    return absl::OkStatus();
  }

  absl::Status ShapeOfExperts(int64_t num_experts, TensorBinding& binding) const {
    const std::vector<int64_t>& first = weights_[binding.parts.front()].shape;
    for (size_t part : binding.parts) {
      if (weights_[part].shape != first) {
        return absl::InternalError(absl::StrCat(weights_[part].name, " does not fit into ", binding.hf_name));
      }
    }
    binding.hf_shape = {num_experts};
    if (first.size() == 2) binding.hf_shape.push_back(first[1]);
    binding.hf_shape.push_back(first[0] * static_cast<int64_t>(binding.parts_per_expert));
    return absl::OkStatus();
  }

  std::span<const WeightShape> weights_;
  std::vector<TensorBinding>& bindings_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<size_t, size_t> owners_;  // weight → binding
};

}  // namespace

std::string AtLayer(std::string_view name, int64_t layer, int64_t expert) {
  return absl::StrReplaceAll({name.data(), name.size()},
                             {{"{layer}", absl::StrCat(layer)}, {"{expert}", absl::StrCat(expert)}});
}

absl::StatusOr<std::vector<TensorBinding>> BindTensors(std::span<const TensorRule> rules, const ModelConfig& config,
                                                       std::span<const WeightShape> weights) {
  std::vector<TensorBinding> bindings;
  Binder binder(weights, bindings);
  const int64_t num_experts = config.moe.num_experts;
  for (const TensorRule& rule : rules) {
    if (config.tied_head && rule.parts.size() == 1 && rule.parts[0] == kHead) {
      if (absl::Status status = binder.ApplyTiedHead(rule); !status.ok()) return status;
      continue;
    }
    const int64_t layers = rule.hf_name.find(kLayer) != std::string::npos ? config.num_layers : 1;
    const int64_t experts = rule.hf_name.find(kExpert) != std::string::npos ? num_experts : 1;
    for (int64_t layer = 0; layer < layers; ++layer) {
      for (int64_t expert = 0; expert < experts; ++expert) {
        if (absl::Status status = binder.Apply(rule, layer, expert, num_experts); !status.ok()) return status;
      }
    }
  }
  if (absl::Status status = binder.CheckAllOwned(); !status.ok()) return status;
  return bindings;
}

}  // namespace temper
