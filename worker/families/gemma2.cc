// SPDX-License-Identifier: Apache-2.0
// Gemma 2: norms around both halves of a block, soft caps on scores and logits, a window in every other layer.
#include <cmath>

#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {.max_positions = 8192,
                                           .tied_head = true,
                                           .num_kv_heads = 4,
                                           .head_dim = 256,
                                           .activation_key = "hidden_activation",
                                           .activation = ops::Activation::kGeluTanh});
  // Older configs have these too; transformers does not look at them.
  (void)config.Raw("hidden_act");
  (void)config.Raw("sliding_window_size");
  model.norm.weight_offset = 1.0;
  model.post_norm = true;
  model.embedding_scale = std::sqrt(static_cast<double>(model.hidden_size));
  model.attention.scale = 1.0 / std::sqrt(config.Double("query_pre_attn_scalar", 256.0));
  model.attention.softcap = config.DoubleOrNull("attn_logit_softcapping", 50.0);
  model.attention.qkv_bias = config.Bool("attention_bias", false);
  model.attention.output_bias = model.attention.qkv_bias;
  model.logits.softcap = config.DoubleOrNull("final_logit_softcapping", 30.0);
  model.ropes = {ReadRope(config, {.max_positions = model.max_positions})};
  const int64_t window = config.SizeOrNull("sliding_window", 4096);
  ReadLayerTypes(config, window, [](int64_t layer) { return layer % 2 == 0; }, model);
  config.Expect("use_bidirectional_attention", false, "a token sees those before it");
  return model;
}

}  // namespace

FamilySpec Gemma2Family() {
  return {
      .name = "gemma2",
      .architecture = "Gemma2ForCausalLM",
      .sequence_classifier = "Gemma2ForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(), SandwichNormRules(), AttentionRules(), GatedMlpRules()}),
  };
}

}  // namespace temper
