// SPDX-License-Identifier: Apache-2.0
// Granite 3: Llama with four multipliers.
#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {});
  model.attention.qkv_bias = config.Bool("attention_bias", false);
  model.attention.output_bias = model.attention.qkv_bias;
  model.feed_forward.bias = config.Bool("mlp_bias", false);
  model.ropes = {ReadRope(config, {.max_positions = model.max_positions})};
  model.embedding_scale = config.Double("embedding_multiplier", 1.0);
  model.attention.scale = config.Double("attention_multiplier", 1.0);
  model.residual_scale = config.Double("residual_multiplier", 1.0);
  model.logits.scale = 1.0 / config.Double("logits_scaling", 1.0);
  return model;
}

}  // namespace

FamilySpec GraniteFamily() {
  return {
      .name = "granite",
      .architecture = "GraniteForCausalLM",
      .configure = Configure,
      .rules = Join({OuterRules(), PreNormRules(), AttentionRules(), GatedMlpRules()}),
  };
}

}  // namespace temper
