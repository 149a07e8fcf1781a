// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/model_config.h"

namespace temper {

// How the parts of a tensor lie in it on disk.
enum class Layout {
  kRows,     // one below the other: a part alone, or a fusion (`qkv_proj` is q, k, v)
  kExperts,  // [experts, in, out], a matrix an expert, transposed, the parts' outputs in turn; biases [experts, out]
};

// How one tensor of a Hugging Face (HF) checkpoint relates to the model's weights. Every rule works in both directions,
// so that export follows from load. Both names may hold the placeholder {layer}, or neither, and {expert}; with
// kExperts the parts alone hold {expert}.
struct TensorRule {
  std::string hf_name;             // "model.layers.{layer}.self_attn.q_proj.weight"
  std::vector<std::string> parts;  // internal names (worker/model/parameter.h): "layers.{layer}.attn.q.weight"
  bool adapter_site = false;
  Layout layout = Layout::kRows;
  // An adapter's module: the matrix lies in × out (GPT-2's Conv1D), though `layout` has it as it is in the model.
  bool in_by_out = false;
  std::string adapter_module;  // its name in transformers' model where that is not the tensor's; else empty
};

// The rule is for the weight of a linear module of the blocks, on which a LoRA adapter can sit.
inline constexpr bool kAdapterSite = true;

// A weight of the model as rules see it: no values.
struct WeightShape {
  std::string name;
  std::vector<int64_t> shape;
};

// A tensor that a checkpoint of this model has: where its rows go.
struct TensorBinding {
  std::string hf_name;
  std::vector<int64_t> hf_shape;
  std::vector<size_t> parts;  // indices into the weights, in the order of the rows; kExperts: expert by expert
  Layout layout = Layout::kRows;
  size_t parts_per_expert = 1;  // kExperts
  // A tied head: the checkpoint may hold the tensor, as a copy of the embedding, or leave it out.
  bool optional_copy = false;
};

// Applies the rules to a model. INTERNAL when a weight has no rule or two, when a fusion is only partly there or its
// parts do not fit together: the family's table is wrong, not the user's checkpoint.
absl::StatusOr<std::vector<TensorBinding>> BindTensors(std::span<const TensorRule> rules, const ModelConfig& config,
                                                       std::span<const WeightShape> weights);

// The name with {layer} replaced, {expert} too.
std::string AtLayer(std::string_view name, int64_t layer, int64_t expert = 0);

}  // namespace temper
