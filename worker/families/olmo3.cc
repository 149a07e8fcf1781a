// SPDX-License-Identifier: Apache-2.0
// OLMo 3: OLMo 2 with a window in three layers of four; a scaled RoPE is that of the other layers alone.
#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

// One RoPE for the layers without a window and one for those with.
void ReadRopes(ConfigReader& config, ModelConfig& model) {
  const RopeDefaults defaults = {.max_positions = model.max_positions, .theta = 500000.0};
  if (!config.Has("rope_parameters")) {
    config.Expect("rope_theta", defaults.theta,
                  "transformers 4 takes it for all layers, transformers 5 for full attention alone; "
                  "write `rope_parameters` with a base for each");
  }
  model.ropes = ReadRopeOfLayerTypes(config, defaults, defaults);
  for (LayerConfig& layer : model.layers) layer.rope = layer.window > 0 ? 1 : 0;
}

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {.max_positions = 2048, .norm_epsilon = 1e-5});
  model.norm.rounds_once = true;
  model.pre_norm = false;
  model.post_norm = true;
  model.attention.qk_norm = QkNorm::kFullWidth;
  model.attention.qkv_bias = config.Bool("attention_bias", false);
  model.attention.output_bias = model.attention.qkv_bias;
  const int64_t window = config.SizeOrNull("sliding_window", 4096);
  if (window == 0) config.AddError("sliding_window", "is null, with which transformers cannot run this family");
  ReadLayerTypes(config, window, [](int64_t layer) { return (layer + 1) % 4 != 0; }, model);
  ReadRopes(config, model);
  return model;
}

}  // namespace

FamilySpec Olmo3Family() {
  return {
      .name = "olmo3",
      .architecture = "Olmo3ForCausalLM",
      .sequence_classifier = "Olmo3ForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(), PostNormRules(), AttentionRules(), QkNormRules(), GatedMlpRules()}),
  };
}

}  // namespace temper
