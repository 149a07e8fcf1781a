// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/peft_adapter.h"

#include <ATen/ATen.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "worker/checkpoint/safetensors.h"

namespace temper {
namespace {

constexpr char kWeights[] = "adapter_model.safetensors";

// Under the names that PEFT gives them.
std::map<std::string, at::Tensor> Masters(std::span<const NamedAdapter> adapters) {
  std::map<std::string, at::Tensor> masters;
  for (const NamedAdapter& named : adapters) {
    const std::string prefix = absl::StrCat("base_model.model.", named.hf_module, ".");
    // LoadMaster only reads.
    const auto load = [](const Parameter& parameter) {
      return LoadMaster({parameter.name, const_cast<Parameter*>(&parameter), 0, parameter.weight.size(0)});
    };
    masters[prefix + "lora_A.weight"] = load(named.adapter->a_RI);
    masters[prefix + "lora_B.weight"] = load(named.adapter->b_OR);
  }
  return masters;
}

std::string_view BytesOf(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

nlohmann::ordered_json ConfigJson(const PeftConfig& config, std::span<const NamedAdapter> adapters) {
  std::set<std::string> targets;
  for (const NamedAdapter& named : adapters) targets.insert(named.hf_module.substr(named.hf_module.rfind('.') + 1));
  return {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path", config.base_model},
      {"r", config.rank},
      {"lora_alpha", config.alpha},
      {"lora_dropout", 0.0},
      {"target_modules", targets},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"use_rslora", false},
      {"use_dora", false},
      {"inference_mode", true},
  };
}

}  // namespace

absl::Status ExportPeftAdapter(const PeftConfig& config, std::span<const NamedAdapter> adapters,
                               PublishedFolder folder) {
  const absl::Status written = folder.Write("adapter_config.json", ConfigJson(config, adapters).dump(2) + "\n");
  if (!written.ok()) return written;
  const std::map<std::string, at::Tensor> masters = Masters(adapters);
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, tensor] : masters) entries.push_back({name, "F32", tensor.sizes().vec()});
  auto file = folder.Create(kWeights);
  if (!file.ok()) return file.status();
  absl::Status status = (*file)->Write(BuildSafetensorsHeader(entries, {{"format", "pt"}}));
  for (auto it = masters.begin(); status.ok() && it != masters.end(); ++it) {
    status = (*file)->Write(BytesOf(it->second));
  }
  return status.ok() ? (*file)->Close() : status;
}

absl::Status ProvePeftAdapter(const ObjectStore& store, std::string_view directory,
                              std::span<const NamedAdapter> adapters) {
  const std::string path = std::string(directory) + "/" + kWeights;
  const auto bytes = store.Read(path, /*max_size=*/int64_t{1} << 36);
  if (!bytes.ok()) return bytes.status();
  const auto size = static_cast<int64_t>(bytes->size());
  const auto header_end = SafetensorsHeaderEnd(*bytes, size, path);
  if (!header_end.ok()) return header_end.status();
  const auto header = ParseSafetensorsHeader(std::string_view(*bytes).substr(0, *header_end), size, path);
  if (!header.ok()) return header.status();
  const std::map<std::string, at::Tensor> masters = Masters(adapters);
  if (header->entries.size() != masters.size()) {
    return absl::DataLossError(absl::StrCat(path, " holds ", header->entries.size(), " tensors, not ", masters.size()));
  }
  for (const SafetensorsEntry& entry : header->entries) {
    const auto master = masters.find(entry.name);
    if (master == masters.end() ||
        BytesOf(master->second) != std::string_view(*bytes).substr(entry.begin, entry.size())) {
      return absl::DataLossError(absl::StrCat(path, ": tensor ", entry.name, " differs from what was trained"));
    }
  }
  return absl::OkStatus();
}

}  // namespace temper
