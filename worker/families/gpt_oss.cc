// SPDX-License-Identifier: Apache-2.0
// gpt-oss: experts with biases and a clamped SwiGLU, a sink in every softmax, a window in every other layer.
#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model =
      ReadDecoder(config, {.max_positions = 131072, .norm_epsilon = 1e-5, .num_kv_heads = 8, .head_dim = 64});
  model.norm.rounds_once = true;
  model.attention.qkv_bias = config.Bool("attention_bias", true);
  model.attention.output_bias = model.attention.qkv_bias;
  model.attention.sinks = true;
  if (!config.Has("rope_parameters") && !config.Has("rope_scaling")) config.AddError("rope_scaling", "is missing");
  model.ropes = {ReadRope(config, {.max_positions = model.max_positions, .theta = 150000.0})};
  const int64_t window = config.SizeOrNull("sliding_window", 128);
  ReadLayerTypes(config, window, [](int64_t layer) { return layer % 2 == 0; }, model);

  ReadExperts(config, {.num_experts = 128, .top_k = 4}, model);
  model.moe.intermediate_size = model.feed_forward.intermediate_size;
  model.moe.activation = ops::Activation::kClampedSwiGlu;
  model.moe.softmax_over_chosen = true;
  model.moe.bias = true;
  for (LayerConfig& layer : model.layers) layer.experts = true;
  config.Expect("swiglu_limit", 7.0, "it is transformers' own");
  config.Expect("experts_per_token", model.moe.top_k, "it is another name of `num_experts_per_tok`");
  (void)config.Raw("initial_context_length");  // another name of the RoPE's original positions
  return model;
}

}  // namespace

FamilySpec GptOssFamily() {
  const std::string hf = "model.layers.{layer}.mlp.", ours = "layers.{layer}.mlp.", expert = ours + "experts.{expert}.";
  const auto stacked = [&](const std::string& name, const std::vector<std::string>& parts) {
    return TensorRule{.hf_name = hf + "experts." + name, .parts = parts, .layout = Layout::kExperts};
  };
  return {
      .name = "gpt_oss",
      .architecture = "GptOssForCausalLM",
      .sequence_classifier = "GptOssForSequenceClassification",
      .configure = Configure,
      .rules = Join({OuterRules(),
                     PreNormRules(),
                     AttentionRules(),
                     {{"model.layers.{layer}.self_attn.sinks", {"layers.{layer}.attn.sinks"}},
                      {hf + "router.weight", {ours + "router.weight"}},
                      {hf + "router.bias", {ours + "router.bias"}},
                      stacked("gate_up_proj", {expert + "gate.weight", expert + "up.weight"}),
                      stacked("gate_up_proj_bias", {expert + "gate.bias", expert + "up.bias"}),
                      stacked("down_proj", {expert + "down.weight"}),
                      stacked("down_proj_bias", {expert + "down.bias"})}}),
      .experts_module = "model.layers.{layer}.mlp.experts",
      .reads_mxfp4 = true,
  };
}

}  // namespace temper
