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
// product a group, and none for a weight that asks for no gradient.
at::Tensor GroupedLinear(const at::Tensor& x_SI, const at::Tensor& weight_GOI, const at::Tensor& bias_GO,
                         const std::vector<int64_t>& starts);

}  // namespace temper::ops
