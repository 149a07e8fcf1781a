// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/publication.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/families/adapter_format.h"
#include "worker/families/adapter_sites.h"
#include "worker/families/family_spec.h"
#include "worker/model/lora.h"
#include "worker/model/model_config.h"
#include "worker/parallel/process_group.h"

namespace temper {

// What adapter_config.json says, under PEFT's names there.
struct PeftConfig {
  std::string task_type = "CAUSAL_LM";
  std::string base_model;  // `base_model_name_or_path`
  int64_t rank = 0;
  double alpha = 0;
  bool rslora = false;
  bool dora = false;
  double dropout = 0;
  std::vector<std::string> target_modules;
  std::vector<std::string> target_parameters;
  std::vector<std::string> modules_to_save;
  bool ensure_weight_tying = false;  // a tied head has the embedding's adapter
};

// A tensor of an adapter's file, and the weights that it is made of.
struct AdapterTensor {
  enum class Layout {
    kRows,        // the parts, one below the other
    kTransposed,  // a part
    // A part, B of all experts: [out, rank · experts], where column r · experts + e is column r of expert e.
    kExperts,
    kInterleavedExperts,  // the same with the rows of gate and up in turn
  };

  std::string name;  // "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
  std::vector<WeightView> parts;
  Layout layout = Layout::kRows;
  int64_t experts = 1;

  std::vector<int64_t> shape() const;
  // As it lies in the file, contiguous. `values_of` gives the numbers of a part, of its shape.
  at::Tensor Join(const std::function<at::Tensor(const WeightView&)>& values_of) const;
  // Sets the masters. `values` is as it lies in the file.
  void Store(const at::Tensor& values) const;
  // All parts' numbers, one below the other, as they lie in the model; and back.
  at::Tensor FromFile(const at::Tensor& values) const;
  at::Tensor ToFile(const at::Tensor& values) const;

 private:
  int64_t halves() const { return layout == Layout::kInterleavedExperts ? 2 : 1; }
};

// A, B and DoRA's m of the adapters on these sites. Each has its adapter among them; two may have the same one. Who
// only writes them may give adapters that are const.
std::vector<AdapterTensor> TensorsOfAdapters(std::span<const AdapterSite> sites,
                                             std::span<const LoraAdapter* const> adapters, AdapterFormat format);

// An adapter on a site without its numbers: names and shapes of its tensors follow from it.
LoraAdapter OutlineAdapter(const AdapterSite& site, const PeftConfig& config);

// Those of whole modules that were trained beside the adapters. `weights` are the model's.
absl::StatusOr<std::vector<AdapterTensor>> TensorsOfModules(const std::vector<std::string>& hf_modules,
                                                            const FamilySpec& family, const ModelConfig& config,
                                                            std::span<const WeightView> weights);

// Writes a PEFT adapter directory, adapter_config.json and adapter_model.safetensors (fp32 masters), and leaves the
// commit to the caller. `ranks` that share the weights all call it and get the same status (null: this rank is alone):
// rank 0 writes. Throws CollectiveError.
absl::Status ExportPeftAdapter(const PeftConfig& config, std::vector<AdapterTensor> tensors, PublishedFolder folder,
                               ProcessGroup* ranks = nullptr);

// Reads the file back and compares every number, bit for bit, with the masters. DATA_LOSS when one differs. `ranks` as
// above.
absl::Status ProvePeftAdapter(const ObjectStore& store, std::string_view directory,
                              std::span<const AdapterTensor> tensors, ProcessGroup* ranks = nullptr);

// A PEFT adapter directory that a training begins with: its headers; numbers are read by Load. Any thread.
class PeftAdapter {
 public:
  // NOT_FOUND: no such directory, or no adapter in it. INVALID_ARGUMENT: no LoRA adapter, or one with something that
  // temper does not have; the message names the key or tensor. DATA_LOSS: its file is damaged.
  static absl::StatusOr<std::unique_ptr<PeftAdapter>> Open(std::string_view uri);

  // An absolute path, or its URI where it is not on this machine.
  const std::string& directory() const { return directory_; }
  // `target_modules` and `modules_to_save` are the whole names of the modules that have tensors. What PEFT writes of
  // the base model beside an adapter on the embedding or the head counts as neither.
  const PeftConfig& config() const { return config_; }
  // Under the names of AdapterTensor.
  const std::vector<SafetensorsEntry>& tensors() const { return file_->header().entries; }
  AdapterFormat format() const { return format_; }
  // A weight of the base model.
  static bool IsOfBase(std::string_view tensor);
  absl::StatusOr<at::Tensor> Tensor(const SafetensorsEntry& entry) const { return file_->Tensor(entry); }

  // Sets the masters. INVALID_ARGUMENT, with the tensor's name, where one is not in the file or has another shape.
  absl::Status Load(std::span<const AdapterTensor> tensors) const;
  // That all are in the file, and that two which are the same weights in the model (A of an expert's gate and up, a
  // tied head) are equal. Errors as Load.
  absl::Status Check(std::span<const AdapterTensor> tensors) const;

 private:
  PeftAdapter() = default;
  absl::Status ReadConfig(std::string_view text);
  absl::Status FindModules();
  absl::StatusOr<at::Tensor> Read(const AdapterTensor& tensor) const;

  std::string directory_;
  PeftConfig config_;
  AdapterFormat format_ = AdapterFormat::kPeft;
  std::map<std::string, size_t> entries_;  // into tensors()
  std::unique_ptr<SafetensorsFile> file_;
};

// What stands before the module's name in an adapter's file.
inline constexpr std::string_view kPeftPrefix = "base_model.model.";

}  // namespace temper
