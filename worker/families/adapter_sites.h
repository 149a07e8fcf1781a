// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/families/family_spec.h"
#include "worker/model/model_config.h"

namespace temper {

// A module of the HF model on which a LoRA adapter can sit.
struct AdapterSite {
  enum class Kind { kLinear, kEmbedding, kHead, kExperts };

  std::string hf_module;    // "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.experts"
  std::string internal;     // its first part: "layers.0.attn.q". A head that shares the embedding's adapter: "embed"
  int64_t parts = 1;        // how many of our maps it is: 3 where q, k and v are one module
  int64_t in_features = 0;  // of one expert
  int64_t out_features = 0;
  Kind kind = Kind::kLinear;

  // Experts: one of the module's parameters, and there are two of them. All experts are one site.
  std::string parameter;  // "gate_up_proj"
  int64_t experts = 1;
  bool interleaved = false;  // in the parameter, gate and up come in turn
  // The modules of one expert that a checkpoint has for it: "model.layers.0.mlp.experts.{expert}.gate_proj" and up's.
  // Empty where a checkpoint has the parameter.
  std::vector<std::string> expert_modules;
};

// The shape of a tensor of the checkpoint, by its HF name; absent when there is none.
using ShapeOfTensor = std::function<std::optional<std::vector<int64_t>>(const std::string& hf_name)>;

// The name with {expert} replaced.
std::string OfExpert(std::string_view name, int64_t expert);

// All sites of a model: layer by layer, then the embedding and the head. A rule whose tensor is not there (a layer that
// has experts instead) gives none. The matrices of the embedding and the head have a row a token.
std::vector<AdapterSite> ListAdapterSites(const FamilySpec& family, const ModelConfig& config,
                                          const ShapeOfTensor& shape_of);

// Those of `all` that `targets` name, in their order. A target is
// - the end of a module's name, in whole parts, as in PEFT: "q_proj", "self_attn.q_proj", or all of it;
// - a pattern with *, ? or […] for all of it: "model.layers.1?.self_attn.*";
// - "all-linear": those of the blocks.
// INVALID_ARGUMENT, with all names that there are, for a target that gives none.
absl::StatusOr<std::vector<AdapterSite>> FindAdapterSites(const std::string& architecture,
                                                          const std::vector<AdapterSite>& all,
                                                          const std::vector<std::string>& targets);

// What PEFT's `target_modules` has to list for just these of all sites: the last part of a name where all modules of
// that name are among them, else whole names. Sorted. Experts are none of them, but the next.
std::vector<std::string> TargetModules(const std::vector<AdapterSite>& sites, const std::vector<AdapterSite>& all);

// The same for `target_parameters`: "mlp.experts.down_proj" for those of all layers.
std::vector<std::string> TargetParameters(const std::vector<AdapterSite>& sites, const std::vector<AdapterSite>& all);

// HF modules with weights of their own ("lm_head", "model.layers.0.input_layernorm") that can be trained beside
// adapters, by the same names and patterns as targets: in the order of the rules, whole names. Experts and their
// routers are not among them. With a tied head, lm_head and the embedding come together. Errors as FindAdapterSites.
absl::StatusOr<std::vector<std::string>> FindTrainedModules(const FamilySpec& family, const ModelConfig& config,
                                                            const ShapeOfTensor& shape_of,
                                                            const std::vector<std::string>& names);

}  // namespace temper
