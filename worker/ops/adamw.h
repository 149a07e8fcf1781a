// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace temper::ops {

struct AdamWCoefficients {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;    // of this tensor
  int64_t step = 1;           // from 1, for the bias correction
  double gradient_scale = 1;  // the gradient is multiplied by it first (clipping)
};

// One step of AdamW (Loshchilov & Hutter 2017) in place, in torch.optim.AdamW's order of operations.
// All tensors are fp32 and of one shape; `gradient` is left as it was.
void AdamWUpdate(at::Tensor master, const at::Tensor& gradient, at::Tensor first_moment, at::Tensor second_moment,
                 const AdamWCoefficients& coefficients);

}  // namespace temper::ops
