// SPDX-License-Identifier: Apache-2.0
#include "worker/families/adapter_sites.h"

#include <fnmatch.h>

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace temper {
namespace {

constexpr std::string_view kLayer = "{layer}";
constexpr std::string_view kExpert = "{expert}";
constexpr std::string_view kAllLinear = "all-linear";

// The module that a tensor belongs to, of a linear map or a norm; "" for a tensor that is no weight or bias of one.
std::string ModuleOf(std::string_view tensor) {
  const size_t dot = tensor.rfind('.');
  const std::string_view last = tensor.substr(dot + 1);
  return last == "weight" || last == "bias" ? std::string(tensor.substr(0, dot)) : "";
}

std::string LastPart(const std::string& module) { return module.substr(module.rfind('.') + 1); }

// The last `count` parts.
std::string LastParts(const std::string& name, int count) {
  size_t dot = name.size();
  for (int i = 0; i < count && dot != std::string::npos && dot > 0; ++i) dot = name.rfind('.', dot - 1);
  return dot == std::string::npos ? name : name.substr(dot + 1);
}

// Names that give just `some` of `all` when a name is matched by its end: the last `parts` of it where all that end so
// are among them, else whole names. Sorted.
std::vector<std::string> ShortNames(const std::vector<std::string>& some, const std::vector<std::string>& all,
                                    int parts) {
  std::map<std::string, int64_t> missing;  // by the end
  for (const std::string& name : all) ++missing[LastParts(name, parts)];
  for (const std::string& name : some) --missing[LastParts(name, parts)];
  std::set<std::string> names;
  for (const std::string& name : some) {
    const std::string end = LastParts(name, parts);
    names.insert(missing[end] == 0 ? end : name);
  }
  return {names.begin(), names.end()};
}

bool Matches(const std::string& target, const std::string& module) {
  if (target.find_first_of("*?[") != std::string::npos) return fnmatch(target.c_str(), module.c_str(), 0) == 0;
  return module == target || module.ends_with("." + target);
}

// The modules that the names match; `field` of the job is to blame where one matches none.
absl::StatusOr<std::set<std::string>> Select(std::string_view field, const std::string& architecture,
                                             const std::vector<std::string>& modules,
                                             const std::vector<std::string>& names, std::string_view also) {
  std::set<std::string> selected;
  for (const std::string& name : names) {
    bool found = false;
    for (const std::string& module : modules) {
      if (!Matches(name, module)) continue;
      selected.insert(module);
      found = true;
    }
    if (found) continue;
    std::set<std::string> there;
    for (const std::string& module : modules) there.insert(LastPart(module));
    return absl::InvalidArgumentError(absl::StrCat(
        std::string(field), ": ", architecture, " has no module \"", name, "\"; there are ", absl::StrJoin(there, ", "),
        modules.empty() ? "" : ", with whole names like ", modules.empty() ? "" : modules.front(), std::string(also)));
  }
  return selected;
}

bool IsOfExperts(const TensorRule& rule) {
  return rule.layout == Layout::kExperts || rule.hf_name.find(kExpert) != std::string::npos ||
         rule.parts.front().find(".router.") != std::string::npos;
}

// Of a name with {layer} and {expert}, which stays.
std::string ExpertsAtLayer(const std::string& name, int64_t layer) {
  const size_t expert = name.find(kExpert);
  return absl::StrCat(AtLayer(name.substr(0, expert), layer), std::string(kExpert),
                      name.substr(expert + kExpert.size()));
}

// The experts of a layer: gate and up, which are one parameter, and down.
void AddExpertSites(const FamilySpec& family, const ModelConfig& config, int64_t layer,
                    std::vector<AdapterSite>& sites) {
  const int64_t hidden = config.hidden_size, inner = config.moe.intermediate_size;
  AdapterSite gate_up = {.hf_module = AtLayer(family.experts_module, layer),
                         .internal = AtLayer("layers.{layer}.mlp.experts.gate_up", layer),
                         .in_features = hidden,
                         .out_features = 2 * inner,
                         .kind = AdapterSite::Kind::kExperts,
                         .parameter = "gate_up_proj",
                         .experts = config.moe.num_experts};
  AdapterSite down = gate_up;
  down.internal = AtLayer("layers.{layer}.mlp.experts.down", layer);
  down.in_features = inner;
  down.out_features = hidden;
  down.parameter = "down_proj";
  for (const char* part : {"gate", "up", "down"}) {
    AdapterSite& site = std::string_view(part) == "down" ? down : gate_up;
    const std::string ours = absl::StrCat("layers.{layer}.mlp.experts.{expert}.", part, ".weight");
    for (const TensorRule& rule : family.rules) {
      if (std::find(rule.parts.begin(), rule.parts.end(), ours) == rule.parts.end()) continue;
      if (rule.layout == Layout::kRows) site.expert_modules.push_back(ExpertsAtLayer(ModuleOf(rule.hf_name), layer));
      site.interleaved = rule.layout == Layout::kExperts && rule.parts.size() > 1;
    }
  }
  sites.push_back(std::move(gate_up));
  sites.push_back(std::move(down));
}

// The embedding and the LM head, which may be one matrix.
void AddTokenSites(const FamilySpec& family, const ModelConfig& config, std::vector<AdapterSite>& sites) {
  for (const TensorRule& rule : family.rules) {
    const std::string internal = ModuleOf(rule.parts.front());
    if (internal != "embed" && (internal != "lm_head" || config.score_head)) continue;
    sites.push_back({.hf_module = ModuleOf(rule.hf_name),
                     .internal = internal,
                     .in_features = config.hidden_size,
                     .out_features = config.vocab_size,
                     .kind = internal == "embed" ? AdapterSite::Kind::kEmbedding : AdapterSite::Kind::kHead});
  }
}

}  // namespace

std::vector<AdapterSite> ListAdapterSites(const FamilySpec& family, const ModelConfig& config,
                                          const ShapeOfTensor& shape_of) {
  std::vector<AdapterSite> sites;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const TensorRule& rule : family.rules) {
      if (!rule.adapter_site || (layer > 0 && rule.hf_name.find(kLayer) == rule.hf_name.npos)) continue;
      const std::string tensor = AtLayer(rule.hf_name, layer);
      const auto shape = shape_of(tensor);
      if (!shape || shape->size() != 2) continue;
      sites.push_back({.hf_module = rule.adapter_module.empty() ? ModuleOf(tensor) : rule.adapter_module,
                       .internal = AtLayer(ModuleOf(rule.parts.front()), layer),
                       .parts = static_cast<int64_t>(rule.parts.size()),
                       .in_features = (*shape)[rule.in_by_out ? 0 : 1],
                       .out_features = (*shape)[rule.in_by_out ? 1 : 0]});
    }
    if (config.layer(layer).experts && !family.experts_module.empty()) AddExpertSites(family, config, layer, sites);
  }
  if (family.token_adapters) AddTokenSites(family, config, sites);
  return sites;
}

std::string OfExpert(std::string_view name, int64_t expert) {
  const size_t at = name.find(kExpert);
  return absl::StrCat(std::string(name.substr(0, at)), expert, std::string(name.substr(at + kExpert.size())));
}

absl::StatusOr<std::vector<AdapterSite>> FindAdapterSites(const std::string& architecture,
                                                          const std::vector<AdapterSite>& all,
                                                          const std::vector<std::string>& targets) {
  std::vector<std::string> modules, names;
  for (const AdapterSite& site : all) modules.push_back(site.hf_module);
  std::copy_if(targets.begin(), targets.end(), std::back_inserter(names),
               [](const std::string& target) { return target != kAllLinear; });
  const bool linear = names.size() < targets.size();
  const auto selected = Select("lora.targets", architecture, modules, names,
                               ", and all-linear. Other modules can be trained as a whole: lora.modules_to_save");
  if (!selected.ok()) return selected.status();
  std::vector<AdapterSite> sites;
  std::copy_if(all.begin(), all.end(), std::back_inserter(sites), [&](const AdapterSite& site) {
    return selected->contains(site.hf_module) || (linear && site.kind == AdapterSite::Kind::kLinear);
  });
  return sites;
}

std::vector<std::string> TargetModules(const std::vector<AdapterSite>& sites, const std::vector<AdapterSite>& all) {
  const auto modules = [](const std::vector<AdapterSite>& from) {
    std::vector<std::string> names;
    for (const AdapterSite& site : from) {
      if (site.kind != AdapterSite::Kind::kExperts) names.push_back(site.hf_module);
    }
    return names;
  };
  return ShortNames(modules(sites), modules(all), 1);
}

std::vector<std::string> TargetParameters(const std::vector<AdapterSite>& sites, const std::vector<AdapterSite>& all) {
  const auto parameters = [](const std::vector<AdapterSite>& from) {
    std::vector<std::string> names;
    for (const AdapterSite& site : from) {
      if (site.kind == AdapterSite::Kind::kExperts) names.push_back(absl::StrCat(site.hf_module, ".", site.parameter));
    }
    return names;
  };
  return ShortNames(parameters(sites), parameters(all), 3);
}

absl::StatusOr<std::vector<std::string>> FindTrainedModules(const FamilySpec& family, const ModelConfig& config,
                                                            const ShapeOfTensor& shape_of,
                                                            const std::vector<std::string>& names) {
  std::vector<std::string> modules;
  std::vector<std::string> tied;
  for (const TensorRule& rule : family.rules) {
    if (IsOfExperts(rule)) continue;
    const bool outer = rule.parts.front() == "embed.weight" || rule.parts.front() == "lm_head.weight";
    const int64_t layers = rule.hf_name.find(kLayer) != std::string::npos ? config.num_layers : 1;
    for (int64_t layer = 0; layer < layers; ++layer) {
      const std::string tensor = AtLayer(rule.hf_name, layer), module = ModuleOf(tensor);
      if (module.empty() || (!shape_of(tensor) && !(config.tied_head && outer))) continue;
      if (config.tied_head && outer) tied.push_back(module);
      if (std::find(modules.begin(), modules.end(), module) == modules.end()) modules.push_back(module);
    }
  }
  const std::string& model = config.score_head ? family.sequence_classifier : family.architecture;
  auto selected = Select("lora.modules_to_save", model, modules, names, "");
  if (!selected.ok()) return selected.status();
  if (std::any_of(tied.begin(), tied.end(), [&](const auto& module) { return selected->contains(module); })) {
    selected->insert(tied.begin(), tied.end());
  }
  std::erase_if(modules, [&](const std::string& module) { return !selected->contains(module); });
  return modules;
}

}  // namespace temper
