// SPDX-License-Identifier: Apache-2.0
// Phi-3 and Phi-4-mini: q, k and v are one matrix on disk, gate and up another; part of a head is rotated, in long
// documents by other frequencies.
#include "worker/families/all_families.h"
#include "worker/families/common_rules.h"
#include "worker/families/decoder_config.h"
#include "worker/families/rope_parameters.h"

namespace temper {
namespace {

ModelConfig Configure(ConfigReader& config) {
  ModelConfig model = ReadDecoder(config, {.max_positions = 4096, .norm_epsilon = 1e-5});
  model.ropes = {
      ReadRope(config, {.max_positions = model.max_positions, .original_max_positions = 4096, .partial = true})};
  const int64_t window = config.SizeOrNull("sliding_window", 0);
  for (LayerConfig& layer : model.layers) layer.window = window;
  config.Expect("resid_pdrop", 0.0, "there is no dropout");
  config.Expect("embd_pdrop", 0.0, "there is no dropout");
  for (const char* key : {"attention_bias", "mlp_bias", "lm_head_bias"}) {
    config.Expect(key, false, "transformers' own class has no such bias");
  }
  config.Expect("full_attn_mod", 1, "all layers are alike");
  config.Expect("interpolate_factor", 1, "positions are not interpolated");
  (void)config.Raw("auto_map");  // code of the time before transformers had the family
  return model;
}

}  // namespace

FamilySpec Phi3Family() {
  const std::string attention = "layers.{layer}.attn.", mlp = "layers.{layer}.mlp.";
  return {
      .name = "phi3",
      .architecture = "Phi3ForCausalLM",
      .sequence_classifier = "Phi3ForSequenceClassification",
      .configure = Configure,
      .rules = Join(
          {OuterRules(),
           PreNormRules(),
           {{"model.layers.{layer}.self_attn.qkv_proj.weight",
             {attention + "q.weight", attention + "k.weight", attention + "v.weight"},
             kAdapterSite},
            {"model.layers.{layer}.self_attn.o_proj.weight", {attention + "o.weight"}, kAdapterSite},
            {"model.layers.{layer}.mlp.gate_up_proj.weight", {mlp + "gate.weight", mlp + "up.weight"}, kAdapterSite},
            {"model.layers.{layer}.mlp.down_proj.weight", {mlp + "down.weight"}, kAdapterSite}}}),
  };
}

}  // namespace temper
