// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace temper::ops {

// y = x · weightᵀ + bias. x_TI, weight_OI and bias_O have one dtype; bias may be undefined. Differentiable; no gradient
// is computed for a weight that does not ask for one.
at::Tensor Linear(const at::Tensor& x_TI, const at::Tensor& weight_OI, const at::Tensor& bias_O = {});

}  // namespace temper::ops
