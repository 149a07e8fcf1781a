// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/sum_of_squares.h"

#include <ATen/ATen.h>

#include "worker/ops/cpu/operators.h"

namespace temper::ops {

at::Tensor SumOfSquares(const at::Tensor& x) {
  if (cpu::CanSumOfSquares(x)) return cpu::SumOfSquares(x);
  return at::linalg_vector_norm(x, 2, at::OptionalIntArrayRef(), /*keepdim=*/false, at::kDouble).square();
}

}  // namespace temper::ops
