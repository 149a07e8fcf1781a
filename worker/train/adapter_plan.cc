// SPDX-License-Identifier: Apache-2.0
#include "worker/train/adapter_plan.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "worker/checkpoint/tensor_map.h"

namespace temper {
namespace {

std::optional<std::vector<int64_t>> ShapeIn(const NativeRepository& model, const std::string& tensor) {
  const RepositoryTensor* const found = model.repository->FindTensor(tensor);
  return found == nullptr ? std::nullopt : std::optional(found->entry.shape);
}

absl::Status CheckRank(const PeftConfig& peft, const std::vector<AdapterSite>& sites) {
  for (const AdapterSite& site : sites) {
    const int64_t limit = std::min(site.in_features, site.out_features);
    if (peft.rank <= limit) continue;
    return absl::InvalidArgumentError(absl::StrCat("lora.rank: ", peft.rank, " is more than ", site.hf_module,
                                                   " can have, a matrix of ", site.out_features, " × ",
                                                   site.in_features, ": give at most ", limit, ", or other targets"));
  }
  return absl::OkStatus();
}

// That every tensor of the adapter has its place in the model, and fits.
absl::Status CheckTensors(const PeftAdapter& adapter, const std::vector<AdapterSite>& all,
                          const NativeRepository& model) {
  std::map<std::string, std::vector<int64_t>> expected;
  for (const AdapterSite& site : all) {
    const std::string prefix = absl::StrCat(std::string(kPeftPrefix), site.hf_module);
    expected[prefix + ".lora_A.weight"] = {adapter.config().rank, site.in_features};
    expected[prefix + ".lora_B.weight"] = {site.out_features, adapter.config().rank};
    if (adapter.config().dora) expected[prefix + ".lora_magnitude_vector"] = {site.out_features};
  }
  for (const SafetensorsEntry& entry : adapter.tensors()) {
    const auto wrong = [&](auto... what) {
      return absl::InvalidArgumentError(absl::StrCat("lora.adapter: ", adapter.directory(),
                                                     " is of another model than the job's: its tensor ", entry.name,
                                                     " ", what...));
    };
    auto shape = expected.find(entry.name);
    if (shape == expected.end()) {
      const std::string tensor = entry.name.substr(kPeftPrefix.size());
      const bool head = tensor == "lm_head.weight" && model.config.tied_head;
      const auto whole = ShapeIn(model, head ? "model.embed_tokens.weight" : tensor);
      if (!whole) return wrong("is for a module that ", model.family->architecture, " with this config.json lacks");
      shape = expected.emplace(entry.name, *whole).first;
    }
    if (entry.shape != shape->second) {
      return wrong("is ", ShapeText(entry.shape), ", the model and the adapter's rank make it ",
                   ShapeText(shape->second));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckApart(const std::vector<AdapterSite>& sites, const std::vector<std::string>& modules) {
  for (const AdapterSite& site : sites) {
    if (std::find(modules.begin(), modules.end(), site.hf_module) == modules.end()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "lora.modules_to_save: ", site.hf_module, " gets an adapter by lora.targets: train it as a whole or adapt it"));
  }
  return absl::OkStatus();
}

absl::Status OfTheAdapter(const absl::Status& status) {
  return WithCause(absl::Status(status.code(), absl::StrCat("lora.adapter: ", status.message())),
                   FailureCause::kUserInput);
}

}  // namespace

TransformerOptions AdapterPlan::ModelOptions(at::ScalarType dtype, int64_t seed) const {
  LoraConfig config = {.rank = peft.rank,
                       .alpha = peft.alpha,
                       .rslora = peft.rslora,
                       .dropout = peft.dropout,
                       .dora = peft.dora,
                       .sites = {},
                       .seed = seed};
  for (const AdapterSite& site : sites) config.sites.push_back({site.internal, site.parts});
  return {.dtype = dtype, .lora = std::move(config), .trained_modules = peft.modules_to_save};
}

absl::StatusOr<std::unique_ptr<AdapterPlan>> PlanAdapters(const TrainJob& job, const NativeRepository& model) {
  if (!job.lora) return std::unique_ptr<AdapterPlan>();
  const LoraOptions& lora = *job.lora;
  const auto shape_of = [&](const std::string& tensor) { return ShapeIn(model, tensor); };
  const std::vector<AdapterSite> all = ListAdapterSites(*model.family, model.config, shape_of);
  auto owned = std::make_unique<AdapterPlan>();
  AdapterPlan& plan = *owned;
  plan.peft = {.base_model = job.model_uri,
               .rank = lora.rank,
               .alpha = lora.alpha,
               .rslora = lora.rslora,
               .dora = lora.dora,
               .dropout = lora.dropout,
               .target_modules = lora.targets,
               .modules_to_save = lora.modules_to_save};
  if (!lora.adapter.empty()) {
    auto start = PeftAdapter::Open(lora.adapter);
    if (!start.ok()) return OfTheAdapter(start.status());
    plan.start = *std::move(start);
    if (absl::Status fits = CheckTensors(*plan.start, all, model); !fits.ok()) return fits;
    plan.peft = plan.start->config();
    plan.peft.base_model = job.model_uri;
    plan.peft.dropout = lora.dropout;
  }
  auto sites = FindAdapterSites(model.family->architecture, all, plan.peft.target_modules);
  if (!sites.ok()) return sites.status();
  plan.sites = *std::move(sites);
  plan.peft.target_modules = TargetModules(plan.sites, all);
  auto modules = FindTrainedModules(*model.family, model.config, shape_of, plan.peft.modules_to_save);
  if (!modules.ok()) return modules.status();
  plan.peft.modules_to_save = *std::move(modules);
  if (absl::Status apart = CheckApart(plan.sites, plan.peft.modules_to_save); !apart.ok()) return apart;
  if (absl::Status rank = CheckRank(plan.peft, plan.sites); !rank.ok()) return rank;
  return owned;
}

TransformerOptions ModelOptions(const TrainJob& job, const AdapterPlan* plan, at::ScalarType dtype) {
  if (plan != nullptr) return plan->ModelOptions(dtype, job.training.seed);
  return {.dtype = dtype, .freeze = job.training.freeze};
}

std::vector<std::string> HfModules(const AdapterPlan& plan, std::span<LoraAdapter* const> adapters) {
  std::map<std::string, std::string> modules;
  for (const AdapterSite& site : plan.sites) modules[site.internal] = site.hf_module;
  std::vector<std::string> names;
  for (const LoraAdapter* adapter : adapters) names.push_back(modules.at(adapter->site));
  return names;
}

absl::StatusOr<std::vector<AdapterTensor>> TensorsOfPlan(const AdapterPlan& plan, const NativeRepository& source,
                                                         const Transformer& model) {
  auto tensors = TensorsOfModules(plan.peft.modules_to_save, *source.family, source.config, model.views());
  if (!tensors.ok()) return tensors.status();
  const std::vector<std::string> modules = HfModules(plan, model.adapters());
  for (size_t i = 0; i < modules.size(); ++i) {
    for (AdapterTensor& tensor : TensorsOfAdapter(modules[i], *model.adapters()[i])) {
      tensors->push_back(std::move(tensor));
    }
  }
  return tensors;
}

}  // namespace temper
