// SPDX-License-Identifier: Apache-2.0
// SmolLM3: every fourth layer has no positions.
#include "absl/strings/str_cat.h"
#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

// `no_rope_layers` says 1 of the layers that do have positions.
void ReadPositions(ConfigReader& config, ModelConfig& model) {
  const int64_t interval = config.Size("no_rope_layer_interval", 4);
  const nlohmann::ordered_json& rotated = config.Raw("no_rope_layers");
  if (!rotated.is_null() && (!rotated.is_array() || static_cast<int64_t>(rotated.size()) < model.num_layers)) {
    return config.AddError("no_rope_layers", absl::StrCat("must be a list with an entry a layer, ", model.num_layers));
  }
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    const bool has_rope = rotated.is_null() ? (layer + 1) % interval != 0 : rotated[layer] != 0;
    model.layers[layer].rope = has_rope ? 0 : kNoRope;
  }
}

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {.max_positions = 32768, .tied_head = true, .num_kv_heads = 4});
  model.attention.qkv_bias = config.Bool("attention_bias", false);
  model.attention.output_bias = model.attention.qkv_bias;
  model.feed_forward.bias = config.Bool("mlp_bias", false);
  model.ropes = {ReadRope(config, {.max_positions = model.max_positions, .theta = 2e6})};
  ReadPositions(config, model);
  const int64_t window = config.SizeOrNull("sliding_window", 0);
  const bool used = config.Bool("use_sliding_window", false);
  ReadLayerTypes(config, used ? window : 0, [&](int64_t layer) { return model.layers[layer].rope == kNoRope; }, model);
  // transformers looks at neither.
  (void)config.Raw("max_window_layers");
  (void)config.Raw("pretraining_tp");
  return model;
}

}  // namespace

FamilySpec SmolLm3Family() {
  return {
      .name = "smollm3",
      .architecture = "SmolLM3ForCausalLM",
      .sequence_classifier = "SmolLM3ForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(), PreNormRules(), AttentionRules(), GatedMlpRules()}),
  };
}

}  // namespace temper
