// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/module_trace.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/verify/figures.h"

namespace temper {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kLayer = "{layer}";
constexpr std::string_view kExperts = ".experts";

// HF's norms of queries and keys may run after heads and tokens have changed places: [H, T, d].
at::Tensor ByToken(const at::Tensor& x, int64_t tokens) {
  const bool heads_first = x.dim() == 3 && x.size(0) != tokens && x.size(1) == tokens;
  return (heads_first ? x.transpose(0, 1) : x).flatten(1);
}

// "x.weight" → "x".
std::string ModuleOf(const std::string& weight) { return weight.substr(0, weight.size() - kWeight.size()); }

std::string Parent(const std::string& name) { return name.substr(0, name.rfind('.')); }

// What stands before a module, when its input departs and nothing before it does.
Departure Before(const ModuleError& error, const ModuleError* previous, const std::string& embedding) {
  const std::string& name = error.module.name;
  const std::string& part = error.module.parts.front();
  if (previous == nullptr) return {embedding, "the embeddings, or their scale", error.input};
  if (part.ends_with(".attn.o")) {
    return {Parent(name), "attention itself (positions, scores or mask): q, k and v agree", error.input};
  }
  if (part.ends_with(".mlp.down")) return {Parent(name), "the activation: gate and up agree", error.input};
  return {previous->module.layer, absl::StrCat("the sum with the residual, or its scale, before ", name), error.input};
}

// The module that a rule's tensor belongs to: HF's name, and ours of its parts, all with placeholders. All experts of a
// layer are one module. Without parts when the tensor is no weight.
HfModule ModuleOfRule(const TensorRule& rule) {
  const auto until_experts = [](const std::string& name) {
    return name.substr(0, name.find(kExperts) + kExperts.size());
  };
  if (rule.parts.front().find("{expert}") != std::string::npos) {
    return {.name = until_experts(rule.hf_name), .parts = {until_experts(rule.parts.front())}};
  }
  if (!rule.hf_name.ends_with(kWeight)) return {};
  HfModule module{.name = ModuleOf(rule.hf_name)};
  for (const std::string& part : rule.parts) module.parts.push_back(ModuleOf(part));
  return module;
}

}  // namespace

std::vector<TracedModule> ModuleTrace::Take() {
  recording_ = false;
  return std::exchange(modules_, {});
}

void ModuleTrace::OnModule(const std::string& name, const at::Tensor& input, const at::Tensor& output) {
  if (recording_) modules_.push_back({name, input.detach(), output.detach()});
}

std::vector<HfModule> FindHfModules(std::span<const TensorRule> rules, int64_t num_layers,
                                    std::span<const TracedModule> traced) {
  std::map<std::string, size_t> order;
  for (size_t i = 0; i < traced.size(); ++i) order.emplace(traced[i].name, i);
  std::map<size_t, HfModule> found;  // by the place of the first part
  for (const TensorRule& rule : rules) {
    const HfModule of_rule = ModuleOfRule(rule);
    if (of_rule.parts.empty()) continue;
    const size_t layer_end = rule.hf_name.find(kLayer);
    const bool per_layer = layer_end != std::string::npos;
    for (int64_t layer = 0; layer < (per_layer ? num_layers : 1); ++layer) {
      HfModule module{.name = AtLayer(of_rule.name, layer)};
      if (per_layer) module.layer = AtLayer(rule.hf_name.substr(0, layer_end + kLayer.size()), layer);
      for (const std::string& part : of_rule.parts) module.parts.push_back(AtLayer(part, layer));
      const bool all_traced = std::all_of(module.parts.begin(), module.parts.end(),
                                          [&](const std::string& part) { return order.contains(part); });
      if (all_traced) found.emplace(order.at(module.parts.front()), std::move(module));
    }
  }
  std::vector<HfModule> modules;
  for (auto& [place, module] : found) modules.push_back(std::move(module));
  return modules;
}

std::string HfEmbeddingName(std::span<const TensorRule> rules) {
  for (const TensorRule& rule : rules) {
    if (rule.parts == std::vector<std::string>{"embed.weight"}) {
      return ModuleOf(rule.hf_name);
    }
  }
  return "the embedding";
}

std::vector<ModuleError> CompareModules(std::span<const HfModule> modules, std::span<const TracedModule> traced,
                                        const HfTrace& reference) {
  std::map<std::string, const TracedModule*> ours;
  for (const TracedModule& module : traced) ours.emplace(module.name, &module);
  std::vector<ModuleError> errors;
  for (const HfModule& module : modules) {
    const auto theirs = reference.modules.find(module.name);
    if (theirs == reference.modules.end()) continue;
    const at::Tensor& input = ours.at(module.parts.front())->input;
    std::vector<at::Tensor> outputs;
    for (const std::string& part : module.parts) outputs.push_back(ours.at(part)->output);
    const int64_t tokens = input.size(0);
    ModuleError error{.module = module};
    error.input = RelativeError(ByToken(theirs->second.input, tokens), ByToken(input, tokens));
    error.output = RelativeError(ByToken(theirs->second.output, tokens), ByToken(at::cat(outputs, -1), tokens));
    errors.push_back(std::move(error));
  }
  return errors;
}

std::optional<Departure> FirstDeparture(std::span<const ModuleError> errors, const std::string& embedding) {
  const ModuleError* previous = nullptr;
  for (const ModuleError& error : errors) {
    // Written so that NaN departs.
    if (!(error.input <= error.input_allowed)) return Before(error, previous, embedding);
    if (!(error.output <= error.output_allowed)) {
      const bool head = error.module.parts.front() == "lm_head";
      return Departure{error.module.name, head ? "the projection, or the logits' scale or soft cap" : "its output",
                       error.output};
    }
    previous = &error;
  }
  return std::nullopt;
}

}  // namespace temper
