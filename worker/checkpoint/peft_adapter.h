// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/storage/publication.h"
#include "worker/model/lora.h"

namespace temper {

// A trained adapter and the HF module that it sits on.
struct NamedAdapter {
  std::string hf_module;  // "model.layers.0.self_attn.q_proj"
  const LoraAdapter* adapter = nullptr;
};

struct PeftConfig {
  std::string base_model;  // what `base_model_name_or_path` says
  int64_t rank = 0;
  double alpha = 0;
};

// Writes a PEFT adapter directory, adapter_config.json and adapter_model.safetensors (fp32 masters), and leaves the
// commit to the caller.
absl::Status ExportPeftAdapter(const PeftConfig& config, std::span<const NamedAdapter> adapters,
                               PublishedFolder folder);

// Reads the file back and compares every number, bit for bit, with the masters. DATA_LOSS when one differs.
absl::Status ProvePeftAdapter(const ObjectStore& store, std::string_view directory,
                              std::span<const NamedAdapter> adapters);

}  // namespace temper
