// SPDX-License-Identifier: Apache-2.0
#include "worker/families/llama.h"

#include <algorithm>
#include <cmath>

#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model;
  model.hidden_size = config.Size("hidden_size");
  model.num_layers = config.Size("num_hidden_layers");
  model.vocab_size = config.Size("vocab_size");
  model.max_positions = config.Size("max_position_embeddings", 2048);
  model.norm_epsilon = config.Double("rms_norm_eps", 1e-6);
  model.tied_head = config.Bool("tie_word_embeddings", false);

  AttentionConfig& attention = model.attention;
  attention.num_heads = config.Size("num_attention_heads");
  attention.num_kv_heads = config.Size("num_key_value_heads", attention.num_heads);
  attention.head_dim = config.Size("head_dim", std::max<int64_t>(1, model.hidden_size / attention.num_heads));
  attention.scale = 1.0 / std::sqrt(static_cast<double>(attention.head_dim));
  attention.qkv_bias = config.Bool("attention_bias", false);
  attention.output_bias = attention.qkv_bias;
  attention.rope = ReadRope(config, model.max_positions, /*default_theta=*/10000.0);
  config.Expect("attention_dropout", 0.0, "attention is computed without dropout");

  model.feed_forward.intermediate_size = config.Size("intermediate_size");
  model.feed_forward.bias = config.Bool("mlp_bias", false);
  config.Expect("hidden_act", "silu", "the feed-forward layer is SwiGLU");
  config.Expect("pretraining_tp", 1, "it slices matrices to reproduce a rounding of the original training");
  return model;
}

}  // namespace

FamilySpec LlamaFamily() {
  return {
      .architecture = "LlamaForCausalLM",
      .configure = Configure,
      .rules =
          {
              {"model.embed_tokens.weight", {"embed.weight"}},
              {"model.layers.{layer}.input_layernorm.weight", {"layers.{layer}.attn_norm.weight"}},
              {"model.layers.{layer}.self_attn.q_proj.weight", {"layers.{layer}.attn.q.weight"}, kAdapterSite},
              {"model.layers.{layer}.self_attn.q_proj.bias", {"layers.{layer}.attn.q.bias"}},
              {"model.layers.{layer}.self_attn.k_proj.weight", {"layers.{layer}.attn.k.weight"}, kAdapterSite},
              {"model.layers.{layer}.self_attn.k_proj.bias", {"layers.{layer}.attn.k.bias"}},
              {"model.layers.{layer}.self_attn.v_proj.weight", {"layers.{layer}.attn.v.weight"}, kAdapterSite},
              {"model.layers.{layer}.self_attn.v_proj.bias", {"layers.{layer}.attn.v.bias"}},
              {"model.layers.{layer}.self_attn.o_proj.weight", {"layers.{layer}.attn.o.weight"}, kAdapterSite},
              {"model.layers.{layer}.self_attn.o_proj.bias", {"layers.{layer}.attn.o.bias"}},
              {"model.layers.{layer}.post_attention_layernorm.weight", {"layers.{layer}.mlp_norm.weight"}},
              {"model.layers.{layer}.mlp.gate_proj.weight", {"layers.{layer}.mlp.gate.weight"}, kAdapterSite},
              {"model.layers.{layer}.mlp.gate_proj.bias", {"layers.{layer}.mlp.gate.bias"}},
              {"model.layers.{layer}.mlp.up_proj.weight", {"layers.{layer}.mlp.up.weight"}, kAdapterSite},
              {"model.layers.{layer}.mlp.up_proj.bias", {"layers.{layer}.mlp.up.bias"}},
              {"model.layers.{layer}.mlp.down_proj.weight", {"layers.{layer}.mlp.down.weight"}, kAdapterSite},
              {"model.layers.{layer}.mlp.down_proj.bias", {"layers.{layer}.mlp.down.bias"}},
              {"model.norm.weight", {"final_norm.weight"}},
              {"lm_head.weight", {"lm_head.weight"}},
          },
      .derived_tensors = {"model.layers.{layer}.self_attn.rotary_emb.inv_freq"},
  };
}

}  // namespace temper
