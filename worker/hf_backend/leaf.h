// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "worker/model/parameter.h"

namespace temper {

// A parameter, and the tensor of the Python model that it is. That one is in autograd's graphs; the parameter's weight
// is an alias of its memory, perhaps of another shape.
struct Leaf {
  Parameter* parameter = nullptr;
  at::Tensor tensor;
};

// Adds the gradients of what is trained of `leaves`, where that of `output` is `grad_output` (undefined: 1, of a
// scalar). Returns that of `input`, if it is defined.
at::Tensor BackpropagateInto(const std::vector<Leaf>& leaves, const at::Tensor& output, const at::Tensor& grad_output,
                             const at::Tensor& input = {});

}  // namespace temper
