// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/routing.h"

#include <ATen/ATen.h>

namespace temper {

std::vector<std::string> HfRouterNames(std::span<const TensorRule> rules, const ModelConfig& config) {
  std::vector<std::string> names;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!config.layer(layer).experts) continue;
    for (const TensorRule& rule : rules) {
      if (!rule.parts.front().ends_with(".router.weight")) continue;
      names.push_back(AtLayer(rule.hf_name.substr(0, rule.hf_name.rfind('.')), layer));
    }
  }
  return names;
}

at::Tensor Choices(int64_t top_k, const std::vector<at::Tensor>& scores) {
  std::vector<at::Tensor> chosen;
  for (const at::Tensor& scores_TE : scores) {
    const at::Tensor experts_Tk = std::get<1>(scores_TE.to(at::kFloat).topk(top_k, -1));
    chosen.push_back(at::zeros(scores_TE.sizes(), at::kBool).scatter_(1, experts_Tk, true));
  }
  return at::cat(chosen, 1);
}

at::Tensor NativeChoices(int64_t top_k, std::span<const TracedModule> traced) {
  std::vector<at::Tensor> scores;
  for (const TracedModule& module : traced) {
    if (module.name.ends_with(".router")) scores.push_back(module.output);
  }
  return Choices(top_k, scores);
}

}  // namespace temper
