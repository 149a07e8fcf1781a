// SPDX-License-Identifier: Apache-2.0
#include "worker/families/decoder_config.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

constexpr int64_t kMaxLayers = 100'000;
constexpr int64_t kMaxExperts = 100'000;

const char* NameOf(ops::Activation activation) {
  return activation == ops::Activation::kGeluTanh ? "gelu_pytorch_tanh" : "silu";
}

}  // namespace

ModelConfig ReadDecoder(ConfigReader& config, const DecoderDefaults& defaults) {
  ModelConfig model;
  model.hidden_size = config.Size("hidden_size");
  model.num_layers = config.Size("num_hidden_layers");
  if (model.num_layers > kMaxLayers) {
    config.AddError("num_hidden_layers", absl::StrCat("must be at most ", kMaxLayers, ", but is ", model.num_layers));
    model.num_layers = 1;
  }
  model.layers.resize(static_cast<size_t>(model.num_layers));
  model.vocab_size = config.Size("vocab_size");
  model.max_positions = config.Size("max_position_embeddings", defaults.max_positions);
  model.norm.epsilon = config.Double("rms_norm_eps", defaults.norm_epsilon);
  model.tied_head = config.Bool("tie_word_embeddings", defaults.tied_head);

  AttentionConfig& attention = model.attention;
  attention.num_heads = config.Size("num_attention_heads");
  attention.num_kv_heads = config.SizeOrNull("num_key_value_heads", defaults.num_kv_heads);
  if (attention.num_kv_heads == 0) attention.num_kv_heads = attention.num_heads;
  const int64_t share = std::max<int64_t>(1, model.hidden_size / attention.num_heads);
  attention.head_dim = config.Size("head_dim", defaults.head_dim > 0 ? defaults.head_dim : share);
  attention.scale = 1.0 / std::sqrt(static_cast<double>(attention.head_dim));
  config.Expect("attention_dropout", 0.0, "attention is computed without dropout");

  model.feed_forward.intermediate_size = config.Size("intermediate_size");
  model.feed_forward.activation = defaults.activation;
  config.Expect(defaults.activation_key, NameOf(defaults.activation), "it is the family's own");
  return model;
}

void ReadLayerTypes(ConfigReader& config, int64_t window, const std::function<bool(int64_t layer)>& by_default,
                    ModelConfig& model) {
  const nlohmann::ordered_json& types = config.Raw("layer_types");
  if (!types.is_null() && (!types.is_array() || static_cast<int64_t>(types.size()) != model.num_layers)) {
    return config.AddError("layer_types", absl::StrCat("must be a list with one entry a layer, ", model.num_layers));
  }
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    bool sliding = false;
    if (types.is_null()) {
      sliding = by_default(layer);
    } else if (types[layer] == "sliding_attention") {
      sliding = true;
      if (window == 0) return config.AddError("layer_types", "has sliding_attention, but there is no `sliding_window`");
    } else if (types[layer] != "full_attention") {
      return config.AddUnsupported("layer_types", absl::StrCat("has ", types[layer].dump(),
                                                               "; supported are full_attention and sliding_attention"));
    }
    if (sliding) model.layers[layer].window = window;
  }
}

void ReadUpperWindows(ConfigReader& config, ModelConfig& model) {
  const bool used = config.Bool("use_sliding_window", false);
  const int64_t window = config.SizeOrNull("sliding_window", 4096);
  const int64_t first = config.Int("max_window_layers", 28);
  ReadLayerTypes(config, used ? window : 0, [&](int64_t layer) { return used && layer >= first; }, model);
}

void ReadExperts(ConfigReader& config, const MoeConfig& defaults, ModelConfig& model) {
  MoeConfig& moe = model.moe;
  moe = defaults;
  // Two names of one key.
  moe.num_experts = config.Size("num_local_experts", config.Size("num_experts", defaults.num_experts));
  moe.top_k = config.Size("num_experts_per_tok", defaults.top_k);
  if (moe.num_experts > kMaxExperts) {
    config.AddError("num_experts", absl::StrCat("must be at most ", kMaxExperts, ", but is ", moe.num_experts));
  } else if (moe.top_k > moe.num_experts) {
    config.AddError("num_experts_per_tok",
                    absl::StrCat("is ", moe.top_k, ", but there are ", moe.num_experts, " experts"));
  }
  const double coefficient = config.Double("router_aux_loss_coef", 0.001);
  if (config.Bool("output_router_logits", false)) moe.balance_coefficient = coefficient;
}

}  // namespace temper
