// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace temper::ops {

// A linear map a group of rows: y = x · weight[g]ᵀ + bias[g] for the rows [starts[g], starts[g + 1]) of x.
//
// x_SI: S rows, one group after another. weight_GOI: one matrix a group, G of them; bias_GO may be undefined. All have
// one dtype. starts: G + 1 entries, from 0 to S; a group may have no rows. Returns [S, O]. Differentiable; one matrix
// product a group, and none for a weight that asks for no gradient. On a CPU threads share out the groups; only
// products that are large enough for all threads come one after another.
//
// With `grad_weight_GOI` (fp32), the backward pass adds the weights' gradient to it, summed in fp32, and autograd gets
// an undefined one.
at::Tensor GroupedLinear(const at::Tensor& x_SI, const at::Tensor& weight_GOI, const at::Tensor& bias_GO,
                         const std::vector<int64_t>& starts, const at::Tensor& grad_weight_GOI = {});

}  // namespace temper::ops
