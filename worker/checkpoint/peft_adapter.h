// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/publication.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/families/family_spec.h"
#include "worker/model/lora.h"
#include "worker/model/model_config.h"

namespace temper {

// What adapter_config.json says, under PEFT's names there.
struct PeftConfig {
  std::string base_model;  // `base_model_name_or_path`
  int64_t rank = 0;
  double alpha = 0;
  bool rslora = false;
  bool dora = false;
  double dropout = 0;
  std::vector<std::string> target_modules;
  std::vector<std::string> modules_to_save;
};

// A tensor of an adapter's file, and the weights that it is made of, one below the other.
struct AdapterTensor {
  std::string name;  // "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
  std::vector<WeightView> parts;

  std::vector<int64_t> shape() const;
};

// A, B and DoRA's m of an adapter on an HF module. Who only writes them may give an adapter that is const.
std::vector<AdapterTensor> TensorsOfAdapter(const std::string& hf_module, const LoraAdapter& adapter);

// Those of whole modules that were trained beside the adapters. `weights` are the model's.
absl::StatusOr<std::vector<AdapterTensor>> TensorsOfModules(const std::vector<std::string>& hf_modules,
                                                            const FamilySpec& family, const ModelConfig& config,
                                                            std::span<const WeightView> weights);

// Writes a PEFT adapter directory, adapter_config.json and adapter_model.safetensors (fp32 masters), and leaves the
// commit to the caller.
absl::Status ExportPeftAdapter(const PeftConfig& config, std::vector<AdapterTensor> tensors, PublishedFolder folder);

// Reads the file back and compares every number, bit for bit, with the masters. DATA_LOSS when one differs.
absl::Status ProvePeftAdapter(const ObjectStore& store, std::string_view directory,
                              std::span<const AdapterTensor> tensors);

// A PEFT adapter directory that a training begins with: its headers; numbers are read by Load. Any thread.
class PeftAdapter {
 public:
  // NOT_FOUND: no such directory, or no adapter in it. INVALID_ARGUMENT: no LoRA adapter, or one with something that
  // temper does not have; the message names the key or tensor. DATA_LOSS: its file is damaged.
  static absl::StatusOr<std::unique_ptr<PeftAdapter>> Open(std::string_view uri);

  const std::string& directory() const { return directory_; }
  // `target_modules` and `modules_to_save` are the whole names of the modules that have tensors.
  const PeftConfig& config() const { return config_; }
  // Under the names of AdapterTensor.
  const std::vector<SafetensorsEntry>& tensors() const { return file_->header().entries; }

  // Sets the masters. INVALID_ARGUMENT, with the tensor's name, where one is not in the file or has another shape.
  absl::Status Load(std::span<const AdapterTensor> tensors) const;

 private:
  PeftAdapter() = default;
  absl::Status ReadConfig(std::string_view text);
  absl::Status FindModules();

  std::string directory_;
  PeftConfig config_;
  std::unique_ptr<SafetensorsFile> file_;
};

// What stands before the module's name in an adapter's file.
inline constexpr std::string_view kPeftPrefix = "base_model.model.";

}  // namespace temper
