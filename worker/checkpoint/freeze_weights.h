// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/families/family_spec.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter.h"

namespace temper {

// Freezes the weights whose HF names match one of the patterns (*, ?, […]; `model.layers.0.*`). `weights` are the
// model's, before they are loaded. A parameter of which all is frozen needs no gradient any more; of others, rows are.
// INVALID_ARGUMENT when a pattern matches nothing, or nothing is left to train.
absl::Status FreezeWeights(const std::vector<std::string>& patterns, const FamilySpec& family,
                           const ModelConfig& config, std::span<const WeightView> weights);

// For a model whose weights are all frozen, because adapters are trained: the tensors of these HF modules, given by
// their whole names ("lm_head"), are trained all the same. Call it before they are loaded.
absl::Status TrainModules(const std::vector<std::string>& hf_modules, const FamilySpec& family,
                          const ModelConfig& config, std::span<const WeightView> weights);

}  // namespace temper
