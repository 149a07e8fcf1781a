// SPDX-License-Identifier: Apache-2.0
// Gemma 3, its text model: five layers with a window to each without, and a RoPE base for either kind.
#include <cmath>

#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {.max_positions = 131072,
                                           .tied_head = true,
                                           .num_kv_heads = 4,
                                           .head_dim = 256,
                                           .activation_key = "hidden_activation",
                                           .activation = ops::Activation::kGeluTanh});
  model.norm.weight_offset = 1.0;
  model.post_norm = true;
  model.embedding_scale = std::sqrt(static_cast<double>(model.hidden_size));
  model.attention.scale = 1.0 / std::sqrt(config.Double("query_pre_attn_scalar", 256.0));
  model.attention.qk_norm = QkNorm::kPerHead;
  model.attention.qkv_bias = config.Bool("attention_bias", false);
  model.attention.output_bias = model.attention.qkv_bias;
  config.Expect("attn_logit_softcapping", nullptr, "transformers does not apply it to this family");
  model.logits.softcap = config.DoubleOrNull("final_logit_softcapping", 0.0);

  const int64_t window = config.SizeOrNull("sliding_window", 4096);
  (void)config.Raw("_sliding_window_pattern");
  const int64_t pattern = config.Size("sliding_window_pattern", 6);
  ReadLayerTypes(config, window, [&](int64_t layer) { return (layer + 1) % pattern != 0; }, model);
  model.ropes = ReadRopeOfLayerTypes(config, {.max_positions = model.max_positions, .theta = 1e6},
                                     {.max_positions = model.max_positions, .theta = 1e4});
  for (LayerConfig& layer : model.layers) layer.rope = layer.window > 0 ? 1 : 0;
  config.Expect("use_bidirectional_attention", false, "a token sees those before it");
  return model;
}

}  // namespace

FamilySpec Gemma3TextFamily() {
  return {
      .name = "gemma3_text",
      .architecture = "Gemma3ForCausalLM",
      .sequence_classifier = "Gemma3TextForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(), SandwichNormRules(), AttentionRules(), QkNormRules(), GatedMlpRules()}),
  };
}

}  // namespace temper
