// SPDX-License-Identifier: Apache-2.0
// OLMo 2: norms after attention and feed-forward layer instead of before, norms of queries and keys over all heads.
#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {.max_positions = 2048, .norm_epsilon = 1e-5});
  model.norm.rounds_once = true;
  model.pre_norm = false;
  model.post_norm = true;
  model.attention.qk_norm = QkNorm::kFullWidth;
  model.attention.qkv_bias = config.Bool("attention_bias", false);
  model.attention.output_bias = model.attention.qkv_bias;
  model.ropes = {ReadRope(config, {.max_positions = model.max_positions})};
  return model;
}

}  // namespace

FamilySpec Olmo2Family() {
  return {
      .name = "olmo2",
      .architecture = "Olmo2ForCausalLM",
      .sequence_classifier = "Olmo2ForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(), PostNormRules(), AttentionRules(), QkNormRules(), GatedMlpRules()}),
  };
}

}  // namespace temper
