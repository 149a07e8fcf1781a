// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/adamw.h"

#include <ATen/ATen.h>

#include <cmath>

#include "worker/ops/cuda/adamw_kernel.h"
#include "worker/ops/cuda/launch.h"
#include "worker/ops/cuda/operators.h"

namespace temper::ops::cuda {

void AdamWUpdate(at::Tensor master, const at::Tensor& gradient, at::Tensor first_moment, at::Tensor second_moment,
                 const AdamWCoefficients& c) {
  for (const at::Tensor& tensor : {master, gradient, first_moment, second_moment}) {
    TORCH_CHECK(tensor.is_contiguous() && tensor.numel() == master.numel(), "AdamW needs dense tensors of one shape");
  }
  const auto step = static_cast<double>(c.step);
  const AdamWFactors factors = {
      .gradient_scale = static_cast<float>(c.gradient_scale),
      .decay = static_cast<float>(1.0 - c.learning_rate * c.weight_decay),
      .first_share = static_cast<float>(1.0 - c.beta1),
      .beta2 = static_cast<float>(c.beta2),
      .second_share = static_cast<float>(1.0 - c.beta2),
      .inverse_correction = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(c.beta2, step))),
      .epsilon = static_cast<float>(c.epsilon),
      .step_size = static_cast<float>(c.learning_rate / (1.0 - std::pow(c.beta1, step)))};
  Launch(master, [&](cudaStream_t stream) {
    AdamW(factors, master.numel(), master.mutable_data_ptr<float>(), gradient.const_data_ptr<float>(),
          first_moment.mutable_data_ptr<float>(), second_moment.mutable_data_ptr<float>(), stream);
  });
}

}  // namespace temper::ops::cuda
