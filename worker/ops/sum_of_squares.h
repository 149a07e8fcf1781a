// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace temper::ops {

// Σ x² of an fp32 tensor, as an fp64 scalar on its device: nothing waits for a GPU.
at::Tensor SumOfSquares(const at::Tensor& x);

}  // namespace temper::ops
