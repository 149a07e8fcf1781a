// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "worker/model/parameter.h"

namespace temper {

// What a block does not keep for its backward pass, which computes it again (Chen et al. 2016): the same bits, for less
// memory and more time.
enum class Recompute { kNone, kAttention, kBlock };

// What is computed of one tensor and of trained weights. Called again with the same tensor, it must do the same.
using RecomputedFunction = std::function<std::vector<at::Tensor>(const at::Tensor& x)>;

// function(x), recorded by autograd as one step that keeps x alone: its backward pass calls `function` again, with
// random numbers as they were. `parameters`: whose weights `function` reads; their memory may be elsewhere in between
// (UnitWeights). The results are tensors; gradients of integers are nothing.
std::vector<at::Tensor> RecomputeInBackward(const RecomputedFunction& function, const at::Tensor& x,
                                            const std::vector<Parameter*>& parameters);

}  // namespace temper
