// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "worker/families/tensor_rule.h"
#include "worker/model/model_config.h"
#include "worker/verify/module_trace.h"

namespace temper {

// Which experts tokens go to.

// HF's names of the routers, layer by layer.
std::vector<std::string> HfRouterNames(std::span<const TensorRule> rules, const ModelConfig& config);

// The top_k experts of each token by each router's scores [T, E], as one mark an expert: bool [T, routers · E].
at::Tensor Choices(int64_t top_k, const std::vector<at::Tensor>& scores);

// The same from what our routers were seen to say.
at::Tensor NativeChoices(int64_t top_k, std::span<const TracedModule> traced);

}  // namespace temper
