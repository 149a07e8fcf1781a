// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/adamw.h"

#include <ATen/ATen.h>

#include "worker/ops/cuda/adamw_kernel.h"
#include "worker/ops/cuda/launch.h"
#include "worker/ops/cuda/operators.h"

namespace temper::ops::cuda {

void AdamWUpdate(at::Tensor master, const at::Tensor& gradient, at::Tensor first_moment, at::Tensor second_moment,
                 const AdamWCoefficients& c) {
  for (const at::Tensor& tensor : {master, gradient, first_moment, second_moment}) {
    TORCH_CHECK(tensor.is_contiguous() && tensor.numel() == master.numel(), "AdamW needs dense tensors of one shape");
  }
  const AdamWFactors factors = FactorsOf(c);
  Launch(master, [&](cudaStream_t stream) {
    AdamW(factors, master.numel(), master.mutable_data_ptr<float>(), gradient.const_data_ptr<float>(),
          first_moment.mutable_data_ptr<float>(), second_moment.mutable_data_ptr<float>(), stream);
  });
}

}  // namespace temper::ops::cuda
