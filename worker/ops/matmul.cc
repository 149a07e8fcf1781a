// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/matmul.h"

#include <ATen/ATen.h>

#include "worker/ops/backward_buffer.h"
#include "worker/ops/cpu/operators.h"

namespace temper::ops {

at::Tensor MatMul(const at::Tensor& a_MK, const at::Tensor& b_KN) {
  at::Tensor c_MN = at::empty({a_MK.size(0), b_KN.size(1)}, a_MK.options());
  MatMulInto(c_MN, a_MK, b_KN);
  return c_MN;
}

void MatMulInto(at::Tensor c_MN, const at::Tensor& a_MK, const at::Tensor& b_KN) {
  const at::NoGradGuard no_grad;
  if (cpu::CanMultiply(a_MK, b_KN, c_MN)) return cpu::Multiply(a_MK, b_KN, c_MN, /*add=*/false);
  at::mm_out(c_MN, a_MK, b_KN);
}

void AddMatMul(at::Tensor c_MN, const at::Tensor& a_MK, const at::Tensor& b_KN) {
  const at::NoGradGuard no_grad;
  if (cpu::CanMultiply(a_MK, b_KN, c_MN)) return cpu::Multiply(a_MK, b_KN, c_MN, /*add=*/true);
  c_MN.addmm_(a_MK, b_KN);
}

at::Tensor LinearMap(const at::Tensor& x_TI, const at::Tensor& weight_OI, const at::Tensor& bias_O) {
  const at::NoGradGuard no_grad;
  if (!x_TI.is_cpu() || x_TI.scalar_type() != at::kFloat) return at::linear(x_TI, weight_OI, IfDefined(bias_O));
  if (!bias_O.defined()) return MatMul(x_TI, weight_OI.t());
  at::Tensor y_TO = at::empty({x_TI.size(0), weight_OI.size(0)}, x_TI.options());
  y_TO.copy_(bias_O.expand_as(y_TO));
  AddMatMul(y_TO, x_TI, weight_OI.t());
  return y_TO;
}

}  // namespace temper::ops
