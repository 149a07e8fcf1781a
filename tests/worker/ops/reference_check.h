// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <vector>

#include "tests/worker/ops/poisoned_memory.h"

namespace temper {

// ‖actual − expected‖ / ‖expected‖ in fp64.
inline double RelativeError(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor reference = expected.to(at::kDouble);
  const double norm = reference.norm().item<double>();
  const double error = (actual.to(at::kDouble) - reference).norm().item<double>();
  return norm == 0 ? error : error / norm;
}

using Operator = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// Runs an operator in `dtype` and its reference in fp64 on the same numbers; output and every gradient must agree
// within `bound`.
inline void ExpectEqualsReference(const Operator& op, const Operator& reference, const std::vector<at::Tensor>& inputs,
                                  at::ScalarType dtype, double bound) {
  std::vector<at::Tensor> ours, theirs;
  for (const at::Tensor& input : inputs) {
    ours.push_back(input.to(dtype).detach().clone().requires_grad_());
    theirs.push_back(ours.back().detach().to(at::kDouble).requires_grad_());
  }
  const at::Tensor our_output = InPoisonedMemory([&] { return op(ours); });
  const at::Tensor their_output = reference(theirs);
  EXPECT_LE(RelativeError(our_output, their_output), bound);
  const at::Tensor grad = at::randn(their_output.sizes(), their_output.options()).to(dtype);
  const auto our_grads = InPoisonedMemory([&] { return torch::autograd::grad({our_output}, ours, {grad}); });
  const auto their_grads = torch::autograd::grad({their_output}, theirs, {grad.to(at::kDouble)});
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_LE(RelativeError(our_grads[i], their_grads[i]), bound) << "gradient of input " << i;
  }
}

}  // namespace temper
