// SPDX-License-Identifier: Apache-2.0
// Mistral 7B and its kin: Llama with a sliding window in every layer, where the config has one.
#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {.max_positions = 131072, .num_kv_heads = 8});
  model.ropes = {ReadRope(config, {.max_positions = model.max_positions})};
  const int64_t window = config.SizeOrNull("sliding_window", 4096);
  for (LayerConfig& layer : model.layers) layer.window = window;
  return model;
}

}  // namespace

FamilySpec MistralFamily() {
  return {
      .name = "mistral",
      .architecture = "MistralForCausalLM",
      .sequence_classifier = "MistralForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(), PreNormRules(), AttentionRules(), GatedMlpRules()}),
  };
}

}  // namespace temper
