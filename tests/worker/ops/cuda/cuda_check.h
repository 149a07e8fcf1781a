// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "tests/worker/ops/reference_check.h"
#include "worker/ops/cuda/operators.h"

// A library that is built with TEMPER_CUDA is tested where it is called, and otherwise its kernels alone are.
#ifdef TEMPER_CUDA
#include "worker/ops/embedding.h"
#include "worker/ops/gated_activation.h"
#include "worker/ops/packed_attention.h"
#include "worker/ops/rms_norm.h"
namespace tested = temper::ops;
#else
namespace tested = temper::ops::cuda;
#endif

namespace temper {

inline at::Tensor Random(at::IntArrayRef sizes) { return at::randn(sizes, at::kCUDA); }

// Output and gradients of two runs on the same numbers are the same to the bit.
inline void ExpectRepeatable(const Operator& op, const std::vector<at::Tensor>& inputs, at::ScalarType dtype) {
  std::vector<std::vector<at::Tensor>> runs;
  at::Tensor grad;
  for (int run = 0; run < 2; ++run) {
    std::vector<at::Tensor> leaves;
    for (const at::Tensor& input : inputs) leaves.push_back(input.to(dtype).detach().clone().requires_grad_());
    const at::Tensor output = op(leaves);
    if (!grad.defined()) grad = at::randn_like(output);
    runs.push_back(torch::autograd::grad({output}, leaves, {grad}));
    runs.back().push_back(output.detach());
  }
  for (size_t i = 0; i < runs[0].size(); ++i) EXPECT_TRUE(at::equal(runs[0][i], runs[1][i])) << "tensor " << i;
}

inline void ExpectRightAndRepeatable(const Operator& op, const Operator& reference,
                                     const std::vector<at::Tensor>& inputs, at::ScalarType dtype, double bound) {
  {
    const PoisonedMemory poisoned;
    ExpectEqualsReference(op, reference, inputs, dtype, bound);
  }
  ExpectRepeatable(op, inputs, dtype);
}

}  // namespace temper
