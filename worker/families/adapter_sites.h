// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
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
  int64_t in_features = 0;
  int64_t out_features = 0;
};

// The shape of a tensor of the checkpoint, by its HF name; absent when there is none.
using ShapeOfTensor = std::function<std::optional<std::vector<int64_t>>(const std::string& hf_name)>;

// All sites of a model, layer by layer. A rule whose tensor is not there (a layer that has experts instead) gives none.
std::vector<AdapterSite> ListAdapterSites(const FamilySpec& family, const ModelConfig& config,
                                          const ShapeOfTensor& shape_of);

// Those of `all` that `targets` name, in their order. A target is
// - the end of a module's name, in whole parts, as in PEFT: "q_proj", "self_attn.q_proj", or all of it;
// - a pattern with *, ? or […] for all of it: "model.layers.1?.self_attn.*";
// - "all-linear".
// INVALID_ARGUMENT, with all names that there are, for a target that gives none.
absl::StatusOr<std::vector<AdapterSite>> FindAdapterSites(const std::string& architecture,
                                                          const std::vector<AdapterSite>& all,
                                                          const std::vector<std::string>& targets);

// What PEFT's `target_modules` has to list for just these of all sites: the last part of a name where all modules of
// that name are among them, else whole names. Sorted.
std::vector<std::string> TargetModules(const std::vector<AdapterSite>& sites, const std::vector<AdapterSite>& all);

// HF modules with weights of their own ("lm_head", "model.layers.0.input_layernorm") that can be trained beside
// adapters, by the same names and patterns as targets: in the order of the rules, whole names. Experts and their
// routers are not among them. With a tied head, lm_head and the embedding come together. Errors as FindAdapterSites.
absl::StatusOr<std::vector<std::string>> FindTrainedModules(const FamilySpec& family, const ModelConfig& config,
                                                            const ShapeOfTensor& shape_of,
                                                            const std::vector<std::string>& names);

}  // namespace temper
