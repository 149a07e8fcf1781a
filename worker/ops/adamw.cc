// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/adamw.h"

#include <ATen/ATen.h>

#include <cmath>

#include "worker/ops/cpu/operators.h"
#include "worker/ops/cuda_dispatch.h"
#include "worker/ops/split_masters.h"

namespace temper::ops {

void AdamWUpdate(at::Tensor master, const at::Tensor& gradient, at::Tensor first_moment, at::Tensor second_moment,
                 const AdamWCoefficients& c) {
  RETURN_IF_CUDA(master, AdamWUpdate(master, gradient, first_moment, second_moment, c));
  if (cpu::CanAdamWUpdate(master)) return cpu::AdamWUpdate(master, gradient, first_moment, second_moment, c);
  const at::NoGradGuard no_grad;
  const at::Tensor scaled = c.gradient_scale == 1.0 ? gradient : gradient * c.gradient_scale;
  if (c.weight_decay != 0.0) master.mul_(1.0 - c.learning_rate * c.weight_decay);
  first_moment.lerp_(scaled, 1.0 - c.beta1);
  second_moment.mul_(c.beta2).addcmul_(scaled, scaled, 1.0 - c.beta2);
  const double correction1 = 1.0 - std::pow(c.beta1, static_cast<double>(c.step));
  const double correction2 = 1.0 - std::pow(c.beta2, static_cast<double>(c.step));
  const at::Tensor denominator = second_moment.sqrt().div_(std::sqrt(correction2)).add_(c.epsilon);
  master.addcdiv_(first_moment, denominator, -c.learning_rate / correction1);
}

void AdamWUpdateSplit(at::Tensor high, at::Tensor low, const at::Tensor& gradient, at::Tensor first_moment,
                      at::Tensor second_moment, const AdamWCoefficients& c) {
  RETURN_IF_CUDA(high, AdamWUpdateSplit(high, low, gradient, first_moment, second_moment, c));
  if (cpu::CanAdamWUpdate(high)) return cpu::AdamWUpdateSplit(high, low, gradient, first_moment, second_moment, c);
  const at::Tensor master = JoinMasters(high, low);
  AdamWUpdate(master, gradient, first_moment, second_moment, c);
  SplitMasters(master, high, low);
}

}  // namespace temper::ops
