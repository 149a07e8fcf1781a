// SPDX-License-Identifier: Apache-2.0
// Llama 2 and 3.x, SmolLM2 and everything else that says LlamaForCausalLM.
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
  config.Expect("pretraining_tp", 1, "it slices matrices to reproduce a rounding of the original training");
  return model;
}

}  // namespace

FamilySpec LlamaFamily() {
  return {
      .name = "llama",
      .architecture = "LlamaForCausalLM",
      .sequence_classifier = "LlamaForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(), PreNormRules(), AttentionRules(), GatedMlpRules()}),
      .derived_tensors = {"model.layers.{layer}.self_attn.rotary_emb.inv_freq"},
  };
}

}  // namespace temper
