// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/model/model_config.h"

namespace temper {

// Names of all that a model does beyond a plain pre-norm decoder, sorted: "gqa", "rope_yarn", "sliding_window". Models
// of one family and one set run the same code and differ in sizes and numbers only, so that a comparison with
// transformers (common/family_verdicts.h) of one holds for the others.
std::vector<std::string> Mechanisms(const ModelConfig& config);

// How many layers a model needs to show all that it does: up to the first of each kind of layer, and at least two, or
// all that there are.
int64_t LeastDepth(const ModelConfig& config);

}  // namespace temper
