// SPDX-License-Identifier: Apache-2.0
// Mixtral: Mistral whose feed-forward layers are experts.
#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {.max_positions = 131072, .norm_epsilon = 1e-5, .num_kv_heads = 8});
  model.ropes = {ReadRope(config, {.max_positions = model.max_positions, .theta = 1e6})};
  ReadExperts(config, {.num_experts = 8, .top_k = 2}, model);
  model.moe.intermediate_size = model.feed_forward.intermediate_size;
  const int64_t window = config.SizeOrNull("sliding_window", 0);
  for (LayerConfig& layer : model.layers) {
    layer.window = window;
    layer.experts = true;
  }
  config.Expect("router_jitter_noise", 0.0, "the router sees no noise");
  return model;
}

}  // namespace

FamilySpec MixtralFamily() {
  const std::string hf = "model.layers.{layer}.block_sparse_moe.", ours = "layers.{layer}.mlp.";
  return {
      .name = "mixtral",
      .architecture = "MixtralForCausalLM",
      .sequence_classifier = "MixtralForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(),
                     PreNormRules(),
                     AttentionRules(),
                     {{hf + "gate.weight", {ours + "router.weight"}},
                      {hf + "experts.{expert}.w1.weight", {ours + "experts.{expert}.gate.weight"}},
                      {hf + "experts.{expert}.w3.weight", {ours + "experts.{expert}.up.weight"}},
                      {hf + "experts.{expert}.w2.weight", {ours + "experts.{expert}.down.weight"}}}}),
      .experts_module = "model.layers.{layer}.mlp.experts",
  };
}

}  // namespace temper
