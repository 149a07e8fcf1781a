// SPDX-License-Identifier: Apache-2.0
#include "worker/families/common_rules.h"

#include <string>

namespace temper {
namespace {

// A linear module of a layer: its weight, on which an adapter can sit, and its bias.
void AddLinear(std::vector<TensorRule>& rules, const std::string& hf_module, const std::string& internal) {
  const std::string hf = "model.layers.{layer}." + hf_module, ours = "layers.{layer}." + internal;
  rules.push_back({hf + ".weight", {ours + ".weight"}, kAdapterSite});
  rules.push_back({hf + ".bias", {ours + ".bias"}});
}

TensorRule Norm(const std::string& hf_module, const std::string& internal) {
  return {"model.layers.{layer}." + hf_module + ".weight", {"layers.{layer}." + internal + ".weight"}};
}

}  // namespace

std::vector<TensorRule> Join(std::initializer_list<std::vector<TensorRule>> rules) {
  std::vector<TensorRule> joined;
  for (const std::vector<TensorRule>& part : rules) joined.insert(joined.end(), part.begin(), part.end());
  return joined;
}

std::vector<TensorRule> OuterRules() {
  return {{"model.embed_tokens.weight", {"embed.weight"}},
          {"model.norm.weight", {"final_norm.weight"}},
          {"lm_head.weight", {"lm_head.weight"}},
          {"score.weight", {"score.weight"}}};
}

std::vector<TensorRule> PreNormRules() {
  return {Norm("input_layernorm", "attn_norm"), Norm("post_attention_layernorm", "mlp_norm")};
}

std::vector<TensorRule> PostNormRules() {
  return {Norm("post_attention_layernorm", "attn_post_norm"), Norm("post_feedforward_layernorm", "mlp_post_norm")};
}

std::vector<TensorRule> SandwichNormRules() {
  return {Norm("input_layernorm", "attn_norm"), Norm("post_attention_layernorm", "attn_post_norm"),
          Norm("pre_feedforward_layernorm", "mlp_norm"), Norm("post_feedforward_layernorm", "mlp_post_norm")};
}

std::vector<TensorRule> AttentionRules() {
  std::vector<TensorRule> rules;
  for (const std::string part : {"q", "k", "v", "o"}) AddLinear(rules, "self_attn." + part + "_proj", "attn." + part);
  return rules;
}

std::vector<TensorRule> QkNormRules() {
  return {Norm("self_attn.q_norm", "attn.q_norm"), Norm("self_attn.k_norm", "attn.k_norm")};
}

std::vector<TensorRule> GatedMlpRules() {
  std::vector<TensorRule> rules;
  for (const std::string part : {"gate", "up", "down"}) AddLinear(rules, "mlp." + part + "_proj", "mlp." + part);
  return rules;
}

}  // namespace temper
