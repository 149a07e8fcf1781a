// SPDX-License-Identifier: Apache-2.0
// Qwen3-MoE: Qwen3 with experts in its layers, or in those of them that the config names.
#include <algorithm>
#include <string>

#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

// `mlp_only_layers` have no experts, and of the others every `decoder_sparse_step`-th has.
void ReadSparseLayers(ConfigReader& config, ModelConfig& model) {
  const int64_t step = config.Size("decoder_sparse_step", 1);
  const nlohmann::ordered_json& dense = config.Raw("mlp_only_layers");
  if (!dense.is_null() && !dense.is_array()) return config.AddError("mlp_only_layers", "must be a list of layers");
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    const bool named = std::find(dense.begin(), dense.end(), layer) != dense.end();
    model.layers[layer].experts = !named && (layer + 1) % step == 0;
  }
}

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {.max_positions = 32768, .num_kv_heads = 4});
  model.attention.qkv_bias = config.Bool("attention_bias", false);
  model.attention.output_bias = model.attention.qkv_bias;
  model.attention.qk_norm = QkNorm::kPerHead;
  model.ropes = {ReadRope(config, {.max_positions = model.max_positions})};
  ReadExperts(config, {.num_experts = 128, .top_k = 8}, model);
  model.moe.intermediate_size = config.Size("moe_intermediate_size", 768);
  model.moe.normalized = config.Bool("norm_topk_prob", false);
  ReadSparseLayers(config, model);
  const bool windows = config.Bool("use_sliding_window", false);
  const int64_t window = config.SizeOrNull("sliding_window", 4096);
  for (LayerConfig& layer : model.layers) layer.window = windows ? window : 0;
  (void)config.Raw("max_window_layers");  // transformers does not look at it
  return model;
}

}  // namespace

FamilySpec Qwen3MoeFamily() {
  const std::string hf = "model.layers.{layer}.mlp.", ours = "layers.{layer}.mlp.";
  std::vector<TensorRule> experts = {{hf + "gate.weight", {ours + "router.weight"}}};
  for (const std::string part : {"gate", "up", "down"}) {
    experts.push_back(
        {hf + "experts.{expert}." + part + "_proj.weight", {ours + "experts.{expert}." + part + ".weight"}});
  }
  // PEFT takes gate_proj, up_proj and down_proj for experts in this family, wherever they are: no adapters on them.
  std::vector<TensorRule> dense = GatedMlpRules();
  for (TensorRule& rule : dense) rule.adapter_site = false;
  return {
      .name = "qwen3_moe",
      .architecture = "Qwen3MoeForCausalLM",
      .sequence_classifier = "Qwen3MoeForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(), PreNormRules(), AttentionRules(), QkNormRules(), dense, experts}),
      .experts_module = "model.layers.{layer}.mlp.experts",
  };
}

}  // namespace temper
