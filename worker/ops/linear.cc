// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/linear.h"

#include <ATen/ATen.h>

namespace temper::ops {

at::Tensor Linear(const at::Tensor& x_TI, const at::Tensor& weight_OI, const at::Tensor& bias_O) {
  // An undefined tensor is not an absent one to ATen.
  if (!bias_O.defined()) return at::linear(x_TI, weight_OI);
  return at::linear(x_TI, weight_OI, bias_O);
}

}  // namespace temper::ops
