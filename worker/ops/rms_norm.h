// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "worker/ops/norm_config.h"
#include "worker/ops/rope.h"

namespace temper::ops {

// The RMS norm of NormConfig over the last dimension.
//
// x: fp32 or bf16, of any number of dimensions; weight_D: x's dtype. Statistics are fp32. Differentiable in both; keeps
// x and one number a row.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight_D, const NormConfig& config);

// x + update, and the RMS norm of it: what a residual stream goes through, in one pass over memory. Both have one shape
// and dtype. Differentiable in all three; keeps the sum and one number a row.
std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& x, const at::Tensor& update, const at::Tensor& weight_D,
                                             const NormConfig& config);

// The RMS norm of every head, and then ApplyRope: what queries and keys go through, in one pass over memory. weight_d
// is for all heads. Differentiable in both; keeps x and one number a head.
at::Tensor RmsNormRope(const at::Tensor& x_THd, const at::Tensor& weight_d, const NormConfig& config,
                       const RopeTable& table);

}  // namespace temper::ops
