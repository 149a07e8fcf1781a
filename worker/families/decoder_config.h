// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

#include "worker/families/config_reader.h"
#include "worker/model/model_config.h"

namespace temper {

// What transformers' config class of a family takes for keys that config.json does not have.
struct DecoderDefaults {
  int64_t max_positions = 2048;
  double norm_epsilon = 1e-6;
  bool tied_head = false;
  // 0: as many as heads of queries.
  int64_t num_kv_heads = 0;
  // 0: hidden_size / num_attention_heads.
  int64_t head_dim = 0;
  const char* activation_key = "hidden_act";
  ops::Activation activation = ops::Activation::kSilu;
};

// Reads the keys that mean the same in every family: sizes, heads, norm epsilon, tied head, activation. Scores are
// scaled by 1/√head_dim; `layers` has one entry a layer.
ModelConfig ReadDecoder(ConfigReader& config, const DecoderDefaults& defaults);

// Gives `window` to the layers that `layer_types` calls "sliding_attention" or, without that key, to those that
// `by_default` names. A window of 0 is none.
void ReadLayerTypes(ConfigReader& config, int64_t window, const std::function<bool(int64_t layer)>& by_default,
                    ModelConfig& model);

// Qwen's windows: with `use_sliding_window`, layers from `max_window_layers` on have `sliding_window`.
void ReadUpperWindows(ConfigReader& config, ModelConfig& model);

// Reads how many experts there are and go with a token, and the coefficient of the loss that evens out their use, which
// counts with `output_router_logits` only, as in transformers.
void ReadExperts(ConfigReader& config, const MoeConfig& defaults, ModelConfig& model);

}  // namespace temper
