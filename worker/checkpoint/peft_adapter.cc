// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/peft_adapter.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/storage/storage_uri.h"
#include "worker/checkpoint/tensor_map.h"
#include "worker/parallel/agree.h"
#include "worker/parallel/gather_master.h"

namespace temper {
namespace {

constexpr char kConfig[] = "adapter_config.json";
constexpr char kWeights[] = "adapter_model.safetensors";

// LoadMaster and StoreMaster take a view of something that may be written.
WeightView Whole(const Parameter& parameter) {
  return {parameter.name, const_cast<Parameter*>(&parameter), 0, parameter.weight.size(0)};
}

// The rows that the file has; those below them are padding.
WeightView FirstRows(const Parameter& parameter, int64_t rows) {
  WeightView view = Whole(parameter);
  view.rows = rows;
  return view;
}

bool IsFirst(const ProcessGroup* ranks) { return ranks == nullptr || ranks->rank() == 0; }

// On rank 0; undefined on others.
at::Tensor Master(const AdapterTensor& tensor, ProcessGroup* ranks) {
  std::vector<at::Tensor> parts;
  for (const WeightView& part : tensor.parts) parts.push_back(GatherMaster(part, ranks, /*to=*/0));
  if (!IsFirst(ranks)) return {};
  size_t next = 0;
  return tensor.Join([&](const WeightView&) { return parts[next++].cpu(); });
}

// PEFT's names and layout for an embedding: its A is our B, transposed, and the other way round.
std::vector<AdapterTensor> TensorsOfEmbedding(const AdapterSite& site, const LoraAdapter& adapter) {
  const std::string prefix = absl::StrCat(std::string(kPeftPrefix), site.hf_module);
  return {
      {prefix + ".lora_embedding_A", {FirstRows(adapter.b_OR, site.out_features)}, AdapterTensor::Layout::kTransposed},
      {prefix + ".lora_embedding_B", {Whole(adapter.a_RI)}, AdapterTensor::Layout::kTransposed}};
}

// PEFT wraps the parameters of a module one by one, the first one innermost.
std::vector<AdapterTensor> TensorsOfStackedExperts(const AdapterSite& site, const LoraAdapter& adapter) {
  const std::string prefix =
      absl::StrCat(std::string(kPeftPrefix), site.hf_module, site.parameter == "gate_up_proj" ? ".base_layer" : "");
  const auto layout = site.interleaved ? AdapterTensor::Layout::kInterleavedExperts : AdapterTensor::Layout::kExperts;
  return {{prefix + ".lora_A.weight", {Whole(adapter.a_RI)}},
          {prefix + ".lora_B.weight", {Whole(adapter.b_OR)}, layout, site.experts}};
}

// What is one map for us and several modules in HF's shares its A.
std::vector<AdapterTensor> TensorsOfSingleExperts(const AdapterSite& site, const LoraAdapter& adapter) {
  const int64_t rank = adapter.rank(), rows = site.out_features / static_cast<int64_t>(site.expert_modules.size());
  std::vector<AdapterTensor> tensors;
  WeightView b = Whole(adapter.b_OR);
  b.rows = rows;
  for (int64_t expert = 0; expert < site.experts; ++expert) {
    WeightView a = Whole(adapter.a_RI);
    a.row = expert * rank;
    a.rows = rank;
    for (const std::string& module : site.expert_modules) {
      const std::string prefix = absl::StrCat(std::string(kPeftPrefix), OfExpert(module, expert));
      tensors.push_back({prefix + ".lora_A.weight", {a}});
      tensors.push_back({prefix + ".lora_B.weight", {b}});
      b.row += rows;
    }
  }
  return tensors;
}

std::vector<AdapterTensor> TensorsOfAdapter(const AdapterSite& site, const LoraAdapter& adapter, AdapterFormat format) {
  if (site.kind == AdapterSite::Kind::kEmbedding) return TensorsOfEmbedding(site, adapter);
  if (site.kind == AdapterSite::Kind::kExperts) {
    const bool stacked = format == AdapterFormat::kPeft || site.expert_modules.empty();
    return stacked ? TensorsOfStackedExperts(site, adapter) : TensorsOfSingleExperts(site, adapter);
  }
  const std::string prefix = absl::StrCat(std::string(kPeftPrefix), site.hf_module);
  std::vector<AdapterTensor> tensors = {{prefix + ".lora_A.weight", {Whole(adapter.a_RI)}},
                                        {prefix + ".lora_B.weight", {FirstRows(adapter.b_OR, site.out_features)}}};
  if (adapter.m_O.weight.defined()) tensors.push_back({prefix + ".lora_magnitude_vector", {Whole(adapter.m_O)}});
  return tensors;
}

nlohmann::ordered_json ConfigJson(const PeftConfig& config) {
  nlohmann::ordered_json json = {
      {"peft_type", "LORA"},
      {"task_type", config.task_type},
      {"base_model_name_or_path", config.base_model},
      {"r", config.rank},
      {"lora_alpha", config.alpha},
      {"lora_dropout", config.dropout},
      {"target_modules", config.target_modules},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"use_rslora", config.rslora},
      {"use_dora", config.dora},
      {"inference_mode", true},
  };
  if (!config.modules_to_save.empty()) json["modules_to_save"] = config.modules_to_save;
  if (!config.target_parameters.empty()) json["target_parameters"] = config.target_parameters;
  if (config.ensure_weight_tying) json["ensure_weight_tying"] = true;
  return json;
}

// Keys of adapter_config.json that change nothing of what the adapter computes, or that are read.
bool IsNeutral(const std::string& key) {
  static const std::set<std::string> kNeutral = {"auto_mapping",
                                                 "base_model_name_or_path",
                                                 "corda_config",
                                                 "ensure_weight_tying",
                                                 "eva_config",
                                                 "exclude_modules",
                                                 "fan_in_fan_out",  // PEFT goes by the layer itself
                                                 "inference_mode",
                                                 "init_lora_weights",
                                                 "layers_pattern",
                                                 "layers_to_transform",
                                                 "loftq_config",
                                                 "lora_alpha",
                                                 "lora_dropout",
                                                 "lora_ga_config",
                                                 "megatron_config",
                                                 "megatron_core",
                                                 "modules_to_save",
                                                 "peft_type",
                                                 "peft_version",
                                                 "qalora_group_size",
                                                 "r",
                                                 "revision",
                                                 "target_modules",
                                                 "target_parameters",
                                                 "task_type",
                                                 "use_dora",
                                                 "use_rslora"};
  return kNeutral.contains(key);
}

// "….experts.7.gate_proj"
bool IsOfOneExpert(std::string_view module) {
  constexpr std::string_view kExperts = ".experts.";
  const size_t at = module.find(kExperts);
  return at != module.npos && absl::ascii_isdigit(module[at + kExperts.size()]);
}

// As PEFT writes what is not used.
bool IsOff(const nlohmann::json& value) {
  return value.is_null() || value == false || value == "none" || value == 0 || (value.is_structured() && value.empty());
}

}  // namespace

std::vector<int64_t> AdapterTensor::shape() const {
  std::vector<int64_t> shape = parts.front().shape();
  for (size_t i = 1; i < parts.size(); ++i) shape[0] += parts[i].rows;
  if (layout == Layout::kTransposed) std::reverse(shape.begin(), shape.end());
  if (layout == Layout::kExperts || layout == Layout::kInterleavedExperts) {
    shape = {shape[0] / experts, shape[1] * experts};
  }
  return shape;
}

at::Tensor AdapterTensor::ToFile(const at::Tensor& values) const {
  if (layout == Layout::kRows) return values;
  if (layout == Layout::kTransposed) return values.t();
  const int64_t out = values.size(0) / experts;
  return values.view({experts, halves(), out / halves(), -1}).permute({2, 1, 3, 0}).reshape({out, -1});
}

at::Tensor AdapterTensor::FromFile(const at::Tensor& values) const {
  if (layout == Layout::kRows) return values;
  if (layout == Layout::kTransposed) return values.t();
  const int64_t out = values.size(0), rank = values.size(1) / experts;
  return values.reshape({out / halves(), halves(), rank, experts}).permute({3, 1, 0, 2}).reshape({experts * out, rank});
}

at::Tensor AdapterTensor::Join(const std::function<at::Tensor(const WeightView&)>& values_of) const {
  std::vector<at::Tensor> values;
  for (const WeightView& part : parts) values.push_back(values_of(part));
  const at::Tensor joined = values.size() == 1 ? values.front() : at::cat(values);
  return ToFile(joined).contiguous();
}

void AdapterTensor::Store(const at::Tensor& values) const {
  const at::Tensor joined = FromFile(values).contiguous();
  int64_t row = 0;
  for (const WeightView& part : parts) {
    StoreMaster(part, joined.narrow(0, row, part.rows));
    row += part.rows;
  }
}

std::vector<AdapterTensor> TensorsOfAdapters(std::span<const AdapterSite> sites,
                                             std::span<const LoraAdapter* const> adapters, AdapterFormat format) {
  std::vector<AdapterTensor> tensors;
  for (const AdapterSite& site : sites) {
    const auto adapter = std::find_if(adapters.begin(), adapters.end(),
                                      [&](const LoraAdapter* each) { return each->site == site.internal; });
    for (AdapterTensor& tensor : TensorsOfAdapter(site, **adapter, format)) tensors.push_back(std::move(tensor));
  }
  return tensors;
}

LoraAdapter OutlineAdapter(const AdapterSite& site, const PeftConfig& config) {
  const auto outline = [](std::vector<int64_t> shape) { return at::empty(shape, at::device(at::kMeta)); };
  LoraAdapter adapter;
  adapter.site = site.internal;
  adapter.experts = site.experts;
  adapter.a_RI.weight = outline({site.experts * config.rank, site.in_features});
  adapter.b_OR.weight = outline({site.experts * site.out_features, config.rank});
  if (config.dora) adapter.m_O.weight = outline({site.experts * site.out_features});
  return adapter;
}

absl::StatusOr<std::vector<AdapterTensor>> TensorsOfModules(const std::vector<std::string>& hf_modules,
                                                            const FamilySpec& family, const ModelConfig& config,
                                                            std::span<const WeightView> weights) {
  std::vector<AdapterTensor> tensors;
  if (hf_modules.empty()) return tensors;
  const auto map = TensorMap::Build(family, config, weights);
  if (!map.ok()) return map.status();
  for (const std::string& module : hf_modules) {
    for (const char* kind : {".weight", ".bias"}) {
      const TensorBinding* const binding = map->Find(module + kind);
      if (binding == nullptr) continue;
      AdapterTensor& tensor = tensors.emplace_back();
      tensor.name = absl::StrCat(std::string(kPeftPrefix), binding->hf_name);
      for (const size_t part : binding->parts) tensor.parts.push_back(weights[part]);
    }
  }
  return tensors;
}

namespace {

// Writes what stands before the tensors' numbers.
absl::StatusOr<std::unique_ptr<PublishedFile>> BeginAdapter(const PeftConfig& config,
                                                            std::span<const AdapterTensor> tensors,
                                                            PublishedFolder folder) {
  const absl::Status written = folder.Write(kConfig, ConfigJson(config).dump(2) + "\n");
  if (!written.ok()) return written;
  std::vector<SafetensorsEntry> entries;
  for (const AdapterTensor& tensor : tensors) entries.push_back({tensor.name, "F32", tensor.shape()});
  auto file = folder.Create(kWeights);
  if (!file.ok()) return file.status();
  const absl::Status begun = (*file)->Write(BuildSafetensorsHeader(entries, {{"format", "pt"}}));
  if (!begun.ok()) return begun;
  return file;
}

struct AdapterFile {
  std::string path;
  std::string bytes;
  std::vector<SafetensorsEntry> entries;
};

absl::StatusOr<AdapterFile> ReadAdapter(const ObjectStore& store, std::string_view directory) {
  const std::string path = std::string(directory) + "/" + kWeights;
  auto bytes = store.Read(path, /*max_size=*/int64_t{1} << 36);
  if (!bytes.ok()) return bytes.status();
  const auto size = static_cast<int64_t>(bytes->size());
  const auto header_end = SafetensorsHeaderEnd(*bytes, size, path);
  if (!header_end.ok()) return header_end.status();
  auto header = ParseSafetensorsHeader(std::string_view(*bytes).substr(0, *header_end), size, path);
  if (!header.ok()) return header.status();
  return AdapterFile{path, *std::move(bytes), std::move(header->entries)};
}

}  // namespace

absl::Status ExportPeftAdapter(const PeftConfig& config, std::vector<AdapterTensor> tensors, PublishedFolder folder,
                               ProcessGroup* ranks) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  absl::StatusOr<std::unique_ptr<PublishedFile>> file = std::unique_ptr<PublishedFile>();
  if (IsFirst(ranks)) file = BeginAdapter(config, tensors, folder);
  if (absl::Status begun = Agree(file.status(), ranks); !begun.ok()) return begun;
  absl::Status status;
  for (const AdapterTensor& tensor : tensors) {
    const at::Tensor master = Master(tensor, ranks);
    if (master.defined() && status.ok()) status = (*file)->Write(BytesOf(master));
  }
  if (*file != nullptr && status.ok()) status = (*file)->Close();
  file->reset();
  return Agree(status, ranks);
}

absl::Status ProvePeftAdapter(const ObjectStore& store, std::string_view directory,
                              std::span<const AdapterTensor> tensors, ProcessGroup* ranks) {
  absl::StatusOr<AdapterFile> file = AdapterFile();
  if (IsFirst(ranks)) file = ReadAdapter(store, directory);
  if (absl::Status read = Agree(file.status(), ranks); !read.ok()) return read;
  std::map<std::string, const SafetensorsEntry*> entries;
  for (const SafetensorsEntry& entry : file->entries) entries[entry.name] = &entry;
  absl::Status status;
  if (IsFirst(ranks) && entries.size() != tensors.size()) {
    status = absl::DataLossError(absl::StrCat(file->path, " holds ", entries.size(), " tensors, not ", tensors.size()));
  }
  for (const AdapterTensor& tensor : tensors) {
    const at::Tensor master = Master(tensor, ranks);
    if (!master.defined()) continue;
    const auto entry = entries.find(tensor.name);
    if (entry == entries.end() ||
        BytesOf(master) != std::string_view(file->bytes).substr(entry->second->begin, entry->second->size())) {
      status.Update(
          absl::DataLossError(absl::StrCat(file->path, ": tensor ", tensor.name, " differs from what was trained")));
    }
  }
  return Agree(status, ranks);
}

absl::StatusOr<std::unique_ptr<PeftAdapter>> PeftAdapter::Open(std::string_view uri) {
  const auto store = ObjectStore::Open(uri);
  if (!store.ok()) return store.status();
  std::unique_ptr<PeftAdapter> adapter(new PeftAdapter);
  const auto config = (*store)->Read(kConfig);
  if (absl::IsNotFound(config.status())) {
    return absl::NotFoundError(
        absl::StrCat(std::string(uri), " has no ", kConfig, ": it is not a PEFT adapter's directory"));
  }
  if (!config.ok()) return config.status();
  adapter->directory_ = (*store)->LocalPath("").value_or((*store)->uri());
  if (absl::Status status = adapter->ReadConfig(*config); !status.ok()) return status;
  const auto exists = (*store)->Exists(kWeights);
  if (!exists.ok()) return exists.status();
  if (!*exists) return absl::NotFoundError(absl::StrCat(adapter->directory_, " has no ", kWeights));
  auto file = SafetensorsFile::Open(**store, kWeights);
  if (!file.ok()) return file.status();
  adapter->file_ = *std::move(file);
  for (size_t i = 0; i < adapter->tensors().size(); ++i) adapter->entries_.emplace(adapter->tensors()[i].name, i);
  if (absl::Status status = adapter->FindModules(); !status.ok()) return status;
  return adapter;
}

absl::Status PeftAdapter::ReadConfig(std::string_view text) {
  const std::string file = UriBelow(directory_, kConfig);
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(file, " is not a JSON object"));
  if (json.value("peft_type", nlohmann::json()) != "LORA") {
    return absl::InvalidArgumentError(absl::StrCat(file, ": `peft_type` is not LORA"));
  }
  for (const auto& [key, value] : json.items()) {
    if (IsNeutral(key) || IsOff(value)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": `", key, "` is ", value.dump(), ", and temper has no such adapters: it must be absent"));
  }
  // Others (PiSSA, OLoRA, CorDA) are made with a change of the base model.
  static const std::set<nlohmann::json> kPlain = {nullptr, true, false, "gaussian", "eva", "orthogonal"};
  const nlohmann::json init = json.value("init_lora_weights", nlohmann::json());
  if (!kPlain.contains(init)) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ": `init_lora_weights` is ", init.dump(),
        ", so the adapter may be of a base model that was changed: have PEFT convert it (path_initial_model_for_weight_"
        "conversion) and set it to true"));
  }
  const auto targets = json.value("target_parameters", nlohmann::json());
  const auto has = [&](std::string_view parameter) {
    return std::any_of(targets.begin(), targets.end(), [&](const nlohmann::json& target) {
      return target.is_string() && target.get<std::string>().ends_with(parameter);
    });
  };
  if (has("gate_up_proj") && !has("down_proj")) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ": `target_parameters` names experts' gate_up_proj without down_proj, and temper adapts both"));
  }
  const auto number = [&](const char* key) { return json.value(key, nlohmann::json()); };
  if (!number("r").is_number_integer() || number("r") < 1 || !number("lora_alpha").is_number() ||
      !(number("lora_alpha") > 0)) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": `r` and `lora_alpha` must be numbers over 0"));
  }
  config_.base_model = json.value("base_model_name_or_path", nlohmann::json()).is_string()
                           ? json["base_model_name_or_path"].get<std::string>()
                           : "";
  config_.rank = number("r").get<int64_t>();
  config_.alpha = number("lora_alpha").get<double>();
  config_.rslora = json.value("use_rslora", nlohmann::json()) == true;
  config_.dora = json.value("use_dora", nlohmann::json()) == true;
  config_.ensure_weight_tying = json.value("ensure_weight_tying", nlohmann::json()) == true;
  return absl::OkStatus();
}

absl::Status PeftAdapter::FindModules() {
  std::set<std::string> targets, saved;
  for (const SafetensorsEntry& entry : tensors()) {
    const std::string& name = entry.name;
    const size_t lora = name.rfind(".lora_"), dot = std::min(lora, name.rfind('.'));
    if (IsOfBase(name)) continue;
    const bool adapter = name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight") ||
                         name.ends_with(".lora_embedding_A") || name.ends_with(".lora_embedding_B") ||
                         (config_.dora && name.ends_with(".lora_magnitude_vector"));
    if (!name.starts_with(kPeftPrefix) || dot < kPeftPrefix.size() || (!adapter && lora != name.npos)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file_->path(), ": temper has nothing that the tensor ", name, " could be for"));
    }
    const std::string module = name.substr(kPeftPrefix.size(), dot - kPeftPrefix.size());
    (adapter ? targets : saved).insert(module);
    if (adapter && IsOfOneExpert(module)) format_ = AdapterFormat::kVllm;
  }
  config_.target_modules.assign(targets.begin(), targets.end());
  config_.modules_to_save.assign(saved.begin(), saved.end());
  return absl::OkStatus();
}

bool PeftAdapter::IsOfBase(std::string_view tensor) { return tensor.ends_with(".base_layer.weight"); }

absl::StatusOr<at::Tensor> PeftAdapter::Read(const AdapterTensor& tensor) const {
  const auto entry = entries_.find(tensor.name);
  if (entry == entries_.end()) {
    return absl::InvalidArgumentError(absl::StrCat(file_->path(), " has no tensor ", tensor.name));
  }
  const SafetensorsEntry& found = tensors()[entry->second];
  if (found.shape != tensor.shape()) {
    return absl::InvalidArgumentError(absl::StrCat(file_->path(), ": ", tensor.name, " is ", ShapeText(found.shape),
                                                   " instead of ", ShapeText(tensor.shape())));
  }
  return file_->Tensor(found);
}

absl::Status PeftAdapter::Load(std::span<const AdapterTensor> tensors) const {
  for (const AdapterTensor& tensor : tensors) {
    const auto values = Read(tensor);
    if (!values.ok()) return values.status();
    tensor.Store(*values);
  }
  return absl::OkStatus();
}

absl::Status PeftAdapter::Check(std::span<const AdapterTensor> tensors) const {
  std::map<std::pair<const Parameter*, int64_t>, const AdapterTensor*> seen;  // by parameter and row
  for (const AdapterTensor& tensor : tensors) {
    const auto values = Read(tensor);
    if (!values.ok()) return values.status();
    const WeightView& first = tensor.parts.front();
    const auto [other, is_new] = seen.emplace(std::pair(first.parameter, first.row), &tensor);
    if (is_new || at::equal(tensor.FromFile(*values), other->second->FromFile(*Read(*other->second)))) continue;
    return absl::InvalidArgumentError(absl::StrCat(file_->path(), ": ", other->second->name, " and ", tensor.name,
                                                   " must be equal, for temper has one matrix for both"));
  }
  return absl::OkStatus();
}

}  // namespace temper
