// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace temper::ops {

// Matrix products, not recorded by autograd, as fast as the device has them: of fp32 matrices on a CPU oneDNN's, not
// MKL's, which takes a slow path on CPUs of another make. Operands may be transposed views.

at::Tensor MatMul(const at::Tensor& a_MK, const at::Tensor& b_KN);
// Into c, whose columns are dense.
void MatMulInto(at::Tensor c_MN, const at::Tensor& a_MK, const at::Tensor& b_KN);
// c += a·b.
void AddMatMul(at::Tensor c_MN, const at::Tensor& a_MK, const at::Tensor& b_KN);
// x · weightᵀ + bias, which may be undefined.
at::Tensor LinearMap(const at::Tensor& x_TI, const at::Tensor& weight_OI, const at::Tensor& bias_O);

}  // namespace temper::ops
