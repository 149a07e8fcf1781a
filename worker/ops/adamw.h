// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>
#include <cstdint>

#include "worker/ops/adamw_factors.h"

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

inline AdamWFactors FactorsOf(const AdamWCoefficients& c) {
  const auto step = static_cast<double>(c.step);
  return {.gradient_scale = static_cast<float>(c.gradient_scale),
          .decay = static_cast<float>(1.0 - c.learning_rate * c.weight_decay),
          .first_share = static_cast<float>(1.0 - c.beta1),
          .beta2 = static_cast<float>(c.beta2),
          .second_share = static_cast<float>(1.0 - c.beta2),
          .inverse_correction = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(c.beta2, step))),
          .epsilon = static_cast<float>(c.epsilon),
          .step_size = static_cast<float>(c.learning_rate / (1.0 - std::pow(c.beta1, step)))};
}

// One step of AdamW (Loshchilov & Hutter 2017) in place, in torch.optim.AdamW's order of operations.
// All tensors are fp32 and of one shape; `gradient` is left as it was.
void AdamWUpdate(at::Tensor master, const at::Tensor& gradient, at::Tensor first_moment, at::Tensor second_moment,
                 const AdamWCoefficients& coefficients);

// The same for a master that is kept as two halves (master_split.h): `high` is bf16, `low` int16.
void AdamWUpdateSplit(at::Tensor high, at::Tensor low, const at::Tensor& gradient, at::Tensor first_moment,
                      at::Tensor second_moment, const AdamWCoefficients& coefficients);

}  // namespace temper::ops
