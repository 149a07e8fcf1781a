// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/adapter_plan.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
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

absl::Status OfTheAdapter(const absl::Status& status) {
  return WithCause(absl::Status(status.code(), absl::StrCat("lora.adapter: ", status.message())),
                   FailureCause::kUserInput);
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

// A tensor of the base model, by its HF name; null when there is none.
const RepositoryTensor* FindBase(const NativeRepository& model, const std::string& name) {
  const bool head = name == "lm_head.weight" && model.config.tied_head;
  return model.repository->FindTensor(head ? "model.embed_tokens.weight" : name);
}

// Whether a tensor of the base model that the adapter's file repeats is the one that the model has.
absl::StatusOr<bool> IsTheModels(const PeftAdapter& adapter, const SafetensorsEntry& entry,
                                 const NativeRepository& model) {
  std::string name = entry.name.substr(kPeftPrefix.size());
  name.erase(name.rfind(".base_layer"), std::string_view(".base_layer").size());
  const RepositoryTensor* const base = FindBase(model, name);
  if (base == nullptr || base->entry.shape != entry.shape) return false;
  const auto ours = model.repository->Tensor(*base), theirs = adapter.Tensor(entry);
  if (!ours.ok() || !theirs.ok()) return ours.ok() ? theirs.status() : ours.status();
  // PEFT writes it in the dtype that it was loaded in.
  const at::ScalarType narrower =
      ours->element_size() < theirs->element_size() ? ours->scalar_type() : theirs->scalar_type();
  return at::equal(ours->to(narrower), theirs->to(narrower));
}

// What the file of an adapter on these sites would hold.
class Outline {
 public:
  // Of a tensor: its site, and which of that it is.
  struct Place {
    size_t site = 0;
    size_t tensor = 0;
  };

  Outline(const std::vector<AdapterSite>& sites, const PeftAdapter& adapter) {
    for (const AdapterSite& site : sites) {
      const LoraAdapter* const outlined =
          &adapters_.try_emplace(site.internal, OutlineAdapter(site, adapter.config())).first->second;
      tensors_.push_back(TensorsOfAdapters({&site, 1}, {&outlined, 1}, adapter.format()));
      for (size_t i = 0; i < tensors_.back().size(); ++i) {
        places_.emplace(tensors_.back()[i].name, Place{tensors_.size() - 1, i});
      }
    }
  }

  const std::vector<AdapterTensor>& tensors(size_t site) const { return tensors_[site]; }
  // Null for a name that none of them has.
  const Place* Find(const std::string& name) const {
    const auto found = places_.find(name);
    return found == places_.end() ? nullptr : &found->second;
  }

 private:
  std::map<std::string, LoraAdapter> adapters_;  // by AdapterSite::internal
  std::vector<std::vector<AdapterTensor>> tensors_;
  std::map<std::string, Place> places_;
};

// The sites that the adapter has tensors for; every tensor has its place in the model, and fits.
absl::StatusOr<std::vector<AdapterSite>> SitesOf(const PeftAdapter& adapter, const std::vector<AdapterSite>& all,
                                                 const NativeRepository& model) {
  const Outline outline(all, adapter);
  std::set<size_t> used;
  for (const SafetensorsEntry& entry : adapter.tensors()) {
    const auto wrong = [&](auto... what) {
      return absl::InvalidArgumentError(absl::StrCat("lora.adapter: ", adapter.directory(),
                                                     " is of another model than the job's: its tensor ", entry.name,
                                                     " ", what...));
    };
    if (PeftAdapter::IsOfBase(entry.name)) {
      const auto same = IsTheModels(adapter, entry, model);
      if (!same.ok()) return same.status();
      if (!*same) return wrong("is a weight of its base model, and the job's model has another");
      continue;
    }
    std::vector<int64_t> shape;
    if (const Outline::Place* const place = outline.Find(entry.name)) {
      shape = outline.tensors(place->site)[place->tensor].shape();
      used.insert(place->site);
    } else if (const auto* const whole = FindBase(model, entry.name.substr(kPeftPrefix.size()))) {
      shape = whole->entry.shape;
    } else {
      return wrong("is for a module that ", model.architecture(), " with this config.json lacks");
    }
    if (entry.shape != shape) {
      return wrong("is ", ShapeText(entry.shape), ", the model and the adapter's rank make it ", ShapeText(shape));
    }
  }
  std::vector<AdapterSite> sites;
  std::vector<AdapterTensor> tensors;
  for (const size_t site : used) {
    sites.push_back(all[site]);
    tensors.insert(tensors.end(), outline.tensors(site).begin(), outline.tensors(site).end());
  }
  if (absl::Status whole = adapter.Check(tensors); !whole.ok()) return OfTheAdapter(whole);
  return sites;
}

bool IsOfTokens(const AdapterSite& site) {
  return site.kind == AdapterSite::Kind::kEmbedding || site.kind == AdapterSite::Kind::kHead;
}

// A tied head is the embedding's own matrix: they share an adapter.
void TieSites(std::vector<AdapterSite>& all) {
  for (AdapterSite& site : all) {
    if (site.kind == AdapterSite::Kind::kHead) site.internal = "embed";
  }
}

// What has an adapter by another site of it has one as well.
void AddSharedSites(const std::vector<AdapterSite>& all, std::vector<AdapterSite>& sites) {
  std::set<std::string> adapted;
  for (const AdapterSite& site : sites) adapted.insert(site.internal);
  sites.clear();
  std::copy_if(all.begin(), all.end(), std::back_inserter(sites),
               [&](const AdapterSite& site) { return adapted.contains(site.internal); });
}

// As PEFT has it, which computes adapters on experts as a change of the weights.
absl::Status CheckMethod(const PeftConfig& peft, const std::vector<AdapterSite>& sites) {
  for (const AdapterSite& site : sites) {
    if (peft.dora && site.kind != AdapterSite::Kind::kLinear) {
      return absl::InvalidArgumentError(absl::StrCat("lora.dora: ", site.hf_module,
                                                     " is no linear layer of the blocks, and only they can have DoRA: "
                                                     "leave one of them out"));
    }
    if (peft.dropout > 0 && site.kind == AdapterSite::Kind::kExperts) {
      return absl::InvalidArgumentError(absl::StrCat("lora.dropout: adapters on ", site.hf_module,
                                                     " can't have it, as in PEFT: leave one of them out"));
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

std::vector<AdapterSite> AllSites(const NativeRepository& model) {
  return ListAdapterSites(*model.family, model.config,
                          [&](const std::string& tensor) { return ShapeIn(model, tensor); });
}

// Names what was found as PEFT does, and checks that it goes together.
absl::StatusOr<std::unique_ptr<AdapterPlan>> Complete(AdapterPlan plan, const std::vector<AdapterSite>& all,
                                                      const NativeRepository& model) {
  PeftConfig& peft = plan.peft;
  AddSharedSites(all, plan.sites);
  peft.ensure_weight_tying &= std::any_of(plan.sites.begin(), plan.sites.end(), IsOfTokens);
  peft.target_modules = TargetModules(plan.sites, all);
  peft.target_parameters = TargetParameters(plan.sites, all);
  auto modules = FindTrainedModules(
      *model.family, model.config, [&](const std::string& tensor) { return ShapeIn(model, tensor); },
      peft.modules_to_save);
  if (!modules.ok()) return modules.status();
  peft.modules_to_save = *std::move(modules);
  if (absl::Status apart = CheckApart(plan.sites, peft.modules_to_save); !apart.ok()) return apart;
  if (absl::Status method = CheckMethod(peft, plan.sites); !method.ok()) return method;
  if (absl::Status rank = CheckRank(peft, plan.sites); !rank.ok()) return rank;
  return std::make_unique<AdapterPlan>(std::move(plan));
}

}  // namespace

TransformerOptions AdapterPlan::ModelOptions(at::ScalarType dtype, int64_t seed) const {
  LoraConfig config = {.rank = peft.rank,
                       .alpha = peft.alpha,
                       .rslora = peft.rslora,
                       .dropout = peft.dropout,
                       .dora = peft.dora,
                       .sites = {},
                       .tied_head = peft.ensure_weight_tying,
                       .seed = seed};
  for (const AdapterSite& site : sites) {
    const LoraSite ours = {site.internal, site.parts};
    const bool known = std::find(config.sites.begin(), config.sites.end(), ours) != config.sites.end();
    if (!known) config.sites.push_back(ours);
  }
  return {.dtype = dtype, .lora = std::move(config), .trained_modules = peft.modules_to_save};
}

PeftConfig AdapterPlan::ConfigIn(AdapterFormat format) const {
  PeftConfig config = peft;
  if (format == AdapterFormat::kPeft) return config;
  std::set<std::string> modules(config.target_modules.begin(), config.target_modules.end());
  for (const AdapterSite& site : sites) {
    for (const std::string& module : site.expert_modules) modules.insert(module.substr(module.rfind('.') + 1));
    if (!site.expert_modules.empty()) config.target_parameters.clear();
  }
  config.target_modules.assign(modules.begin(), modules.end());
  return config;
}

bool AdapterPlan::changes_tied_apart(const ModelConfig& config) const {
  return config.tied_head && !peft.ensure_weight_tying && std::any_of(sites.begin(), sites.end(), IsOfTokens);
}

absl::StatusOr<std::unique_ptr<AdapterPlan>> PlanNewAdapters(PeftConfig peft, const NativeRepository& model) {
  std::vector<AdapterSite> all = AllSites(model);
  peft.ensure_weight_tying = model.config.tied_head;
  if (peft.ensure_weight_tying) TieSites(all);
  auto sites = FindAdapterSites(model.architecture(), all, peft.target_modules);
  if (!sites.ok()) return sites.status();
  return Complete({.peft = std::move(peft), .sites = *std::move(sites), .start = nullptr}, all, model);
}

absl::StatusOr<std::unique_ptr<AdapterPlan>> PlanFromAdapter(const std::string& uri, double dropout,
                                                             const NativeRepository& model) {
  auto start = PeftAdapter::Open(uri);
  if (!start.ok()) return OfTheAdapter(start.status());
  PeftConfig peft = (*start)->config();
  peft.dropout = dropout;
  peft.ensure_weight_tying &= model.config.tied_head;
  std::vector<AdapterSite> all = AllSites(model);
  if (peft.ensure_weight_tying) TieSites(all);
  auto sites = SitesOf(**start, all, model);
  if (!sites.ok()) return sites.status();
  return Complete({.peft = std::move(peft), .sites = *std::move(sites), .start = *std::move(start)}, all, model);
}

absl::StatusOr<std::vector<AdapterTensor>> TensorsOfPlan(const AdapterPlan& plan, const NativeRepository& source,
                                                         const TrainableModel& model, AdapterFormat format) {
  auto tensors = TensorsOfModules(plan.peft.modules_to_save, *source.family, source.config, model.views());
  if (!tensors.ok()) return tensors.status();
  const std::vector<const LoraAdapter*> adapters(model.adapters().begin(), model.adapters().end());
  for (AdapterTensor& tensor : TensorsOfAdapters(plan.sites, adapters, format)) tensors->push_back(std::move(tensor));
  return tensors;
}

absl::Status LoadStart(const AdapterPlan& plan, const NativeRepository& source, const TrainableModel& model) {
  if (plan.start == nullptr) return absl::OkStatus();
  const auto tensors = TensorsOfPlan(plan, source, model, plan.start->format());
  return tensors.ok() ? plan.start->Load(*tensors) : tensors.status();
}

}  // namespace temper
