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

// The module that a tensor belongs to, of a linear map or a norm; "" for a tensor that is no weight or bias of one.
std::string ModuleOf(std::string_view tensor) {
  const size_t dot = tensor.rfind('.');
  const std::string_view last = tensor.substr(dot + 1);
  return last == "weight" || last == "bias" ? std::string(tensor.substr(0, dot)) : "";
}

std::string LastPart(const std::string& module) { return module.substr(module.rfind('.') + 1); }

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

}  // namespace

std::vector<AdapterSite> ListAdapterSites(const FamilySpec& family, const ModelConfig& config,
                                          const ShapeOfTensor& shape_of) {
  std::vector<AdapterSite> sites;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const TensorRule& rule : family.rules) {
      if (!rule.adapter_site) continue;
      const std::string tensor = AtLayer(rule.hf_name, layer);
      const auto shape = shape_of(tensor);
      if (!shape || shape->size() != 2) continue;
      sites.push_back({ModuleOf(tensor), AtLayer(ModuleOf(rule.parts.front()), layer),
                       static_cast<int64_t>(rule.parts.size()), (*shape)[1], (*shape)[0]});
    }
  }
  return sites;
}

absl::StatusOr<std::vector<AdapterSite>> FindAdapterSites(const std::string& architecture,
                                                          const std::vector<AdapterSite>& all,
                                                          const std::vector<std::string>& targets) {
  if (std::find(targets.begin(), targets.end(), "all-linear") != targets.end()) return all;
  std::vector<std::string> modules;
  for (const AdapterSite& site : all) modules.push_back(site.hf_module);
  const auto selected = Select("lora.targets", architecture, modules, targets,
                               ", and all-linear. Other modules can be trained as a whole: lora.modules_to_save");
  if (!selected.ok()) return selected.status();
  std::vector<AdapterSite> sites;
  std::copy_if(all.begin(), all.end(), std::back_inserter(sites),
               [&](const AdapterSite& site) { return selected->contains(site.hf_module); });
  return sites;
}

std::vector<std::string> TargetModules(const std::vector<AdapterSite>& sites, const std::vector<AdapterSite>& all) {
  std::map<std::string, int64_t> missing;  // by last part
  for (const AdapterSite& site : all) ++missing[LastPart(site.hf_module)];
  for (const AdapterSite& site : sites) --missing[LastPart(site.hf_module)];
  std::set<std::string> names;
  for (const AdapterSite& site : sites) {
    const std::string last = LastPart(site.hf_module);
    names.insert(missing[last] == 0 ? last : site.hf_module);
  }
  return {names.begin(), names.end()};
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
  auto selected = Select("lora.modules_to_save", family.architecture, modules, names, "");
  if (!selected.ok()) return selected.status();
  if (std::any_of(tied.begin(), tied.end(), [&](const auto& module) { return selected->contains(module); })) {
    selected->insert(tied.begin(), tied.end());
  }
  std::erase_if(modules, [&](const std::string& module) { return !selected->contains(module); });
  return modules;
}

}  // namespace temper
