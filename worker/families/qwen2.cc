// SPDX-License-Identifier: Apache-2.0
// Qwen2 and Qwen2.5: biases on q, k and v.
#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {.max_positions = 32768, .num_kv_heads = 32});
  model.attention.qkv_bias = true;
  model.ropes = {ReadRope(config, {.max_positions = model.max_positions})};
  ReadUpperWindows(config, model);
  config.Expect("use_mrope", false, "positions are those of text");
  return model;
}

}  // namespace

FamilySpec Qwen2Family() {
  return {
      .name = "qwen2",
      .architecture = "Qwen2ForCausalLM",
      .sequence_classifier = "Qwen2ForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(), PreNormRules(), AttentionRules(), GatedMlpRules()}),
  };
}

}  // namespace temper
