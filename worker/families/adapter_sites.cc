// SPDX-License-Identifier: Apache-2.0
#include "worker/families/adapter_sites.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace temper {
namespace {

std::string ModuleOf(const std::string& weight_name) {
  return std::string(absl::StripSuffix({weight_name.data(), weight_name.size()}, ".weight"));
}

std::string LastPart(const std::string& module) { return module.substr(module.rfind('.') + 1); }

}  // namespace

absl::StatusOr<std::vector<AdapterSite>> FindAdapterSites(const FamilySpec& family, const ModelConfig& config,
                                                          const std::vector<std::string>& targets) {
  std::set<std::string> names;
  for (const TensorRule& rule : family.rules) {
    if (rule.adapter_site) names.insert(LastPart(ModuleOf(rule.hf_name)));
  }
  const bool all = std::find(targets.begin(), targets.end(), "all-linear") != targets.end();
  for (const std::string& target : targets) {
    if (target == "all-linear" || names.contains(target)) continue;
    return absl::InvalidArgumentError(absl::StrCat("lora.targets: ", family.architecture, " has no module \"", target,
                                                   "\"; there are ", absl::StrJoin(names, ", "), " and all-linear"));
  }
  std::vector<AdapterSite> sites;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const TensorRule& rule : family.rules) {
      if (!rule.adapter_site) continue;
      const std::string module = ModuleOf(rule.hf_name);
      if (!all && std::find(targets.begin(), targets.end(), LastPart(module)) == targets.end()) continue;
      sites.push_back({AtLayer(module, layer), AtLayer(ModuleOf(rule.parts.front()), layer),
                       static_cast<int64_t>(rule.parts.size())});
    }
  }
  return sites;
}

}  // namespace temper
