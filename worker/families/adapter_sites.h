// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/families/family_spec.h"
#include "worker/model/model_config.h"

namespace temper {

// A linear module of the HF model on which a LoRA adapter can sit.
struct AdapterSite {
  std::string hf_module;  // "model.layers.0.self_attn.q_proj"
  std::string internal;   // its first part: "layers.0.attn.q"
  int64_t parts = 1;      // how many of our maps it is: 3 where q, k and v are one module
};

// The sites that `targets` name, layer by layer: each target is the last part of an HF module's name ("q_proj") or
// "all-linear". INVALID_ARGUMENT, with all names that there are, for a target that is none of them.
absl::StatusOr<std::vector<AdapterSite>> FindAdapterSites(const FamilySpec& family, const ModelConfig& config,
                                                          const std::vector<std::string>& targets);

}  // namespace temper
