// SPDX-License-Identifier: Apache-2.0
// Qwen3: norms of queries and keys, head by head.
#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {.max_positions = 32768, .num_kv_heads = 32, .head_dim = 128});
  model.attention.qkv_bias = config.Bool("attention_bias", false);
  model.attention.output_bias = model.attention.qkv_bias;
  model.attention.qk_norm = QkNorm::kPerHead;
  model.ropes = {ReadRope(config, {.max_positions = model.max_positions})};
  ReadUpperWindows(config, model);
  return model;
}

}  // namespace

FamilySpec Qwen3Family() {
  return {
      .name = "qwen3",
      .architecture = "Qwen3ForCausalLM",
      .sequence_classifier = "Qwen3ForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(), PreNormRules(), AttentionRules(), QkNormRules(), GatedMlpRules()}),
  };
}

}  // namespace temper
