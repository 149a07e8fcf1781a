// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

namespace temper::ops {

// What a linear map is applied to. The gradients of its weights need it again, and keep it, unless there is a way to
// make it again, the same to the bit, from what is kept anyway.
struct LinearInput {
  // NOLINTNEXTLINE(google-explicit-constructor): a plain tensor will do.
  LinearInput(at::Tensor value, std::function<at::Tensor()> remake = nullptr)
      : value(std::move(value)), remake(std::move(remake)) {}

  at::Tensor value;
  std::function<at::Tensor()> remake;  // called in backward, at most once, with no gradients recorded
};

// y[:, row + r] += scale · (x · Aᵀ) · Bᵀ[:, r]: a low-rank update of some rows of a weight, all of its matrices of the
// weight's dtype. Gradients that are defined are what backward adds to (fp32), as with Linear's weight.
struct LowRankUpdate {
  at::Tensor a_RI, b_OR;
  at::Tensor grad_a_RI, grad_b_OR;
  double scale = 1.0;
  int64_t row = 0;
};

// y = x · weightᵀ + bias, and then the updates. x_TI, weight_OI and bias_O have one dtype; bias may be undefined.
// Differentiable; no gradient is computed for a weight that does not ask for one. An update's output is never there by
// itself, in neither pass.
//
// With `grad_weight_OI` (fp32), the backward pass adds the weight's gradient to it, summed in fp32, and autograd gets
// an undefined one.
at::Tensor Linear(const LinearInput& x_TI, const at::Tensor& weight_OI, const at::Tensor& bias_O = {},
                  const at::Tensor& grad_weight_OI = {}, const std::vector<LowRankUpdate>& updates = {});

// to_OI (fp32) += gradᵀ · x.
void AddWeightGradient(const at::Tensor& grad_TO, const at::Tensor& x_TI, at::Tensor to_OI);

}  // namespace temper::ops
