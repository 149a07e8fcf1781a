// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace temper::ops {

// y = x · weightᵀ + bias. x_TI, weight_OI and bias_O have one dtype; bias may be undefined. Differentiable; no gradient
// is computed for a weight that does not ask for one.
//
// With `grad_weight_OI` (fp32), the backward pass adds the weight's gradient to it, summed in fp32, and autograd gets
// an undefined one.
at::Tensor Linear(const at::Tensor& x_TI, const at::Tensor& weight_OI, const at::Tensor& bias_O = {},
                  const at::Tensor& grad_weight_OI = {});

// to_OI (fp32) += gradᵀ · x.
void AddWeightGradient(const at::Tensor& grad_TO, const at::Tensor& x_TI, at::Tensor to_OI);

}  // namespace temper::ops
