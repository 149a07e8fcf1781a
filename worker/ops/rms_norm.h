// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace temper::ops {

// y = x / sqrt(mean(x²) + epsilon) · weight, over the last dimension (Zhang & Sennrich 2019).
//
// x_TD: fp32 or bf16; weight_D: x's dtype. Statistics are fp32. Differentiable in both; keeps x and one number a row.
at::Tensor RmsNorm(const at::Tensor& x_TD, const at::Tensor& weight_D, double epsilon);

}  // namespace temper::ops
