// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/adamw.h"

#include <ATen/ATen.h>

#include <vector>

#include "worker/ops/cuda/adamw_kernel.h"
#include "worker/ops/cuda/launch.h"
#include "worker/ops/cuda/operators.h"

namespace temper::ops::cuda {

namespace {

void CheckDense(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    TORCH_CHECK(tensor.is_contiguous() && tensor.numel() == tensors[0].numel(),
                "AdamW needs dense tensors of one shape");
  }
}

}  // namespace

void AdamWUpdate(at::Tensor master, const at::Tensor& gradient, at::Tensor first_moment, at::Tensor second_moment,
                 const AdamWCoefficients& c) {
  CheckDense({master, gradient, first_moment, second_moment});
  const AdamWFactors factors = FactorsOf(c);
  Launch(master, [&](cudaStream_t stream) {
    AdamW(factors, master.numel(), master.mutable_data_ptr<float>(), gradient.const_data_ptr<float>(),
          first_moment.mutable_data_ptr<float>(), second_moment.mutable_data_ptr<float>(), stream);
  });
}

void AdamWUpdateSplit(at::Tensor high, at::Tensor low, const at::Tensor& gradient, at::Tensor first_moment,
                      at::Tensor second_moment, const AdamWCoefficients& c) {
  CheckDense({high, low, gradient, first_moment, second_moment});
  const AdamWFactors factors = FactorsOf(c);
  Launch(high, [&](cudaStream_t stream) {
    AdamWSplit(factors, high.numel(), reinterpret_cast<uint16_t*>(high.mutable_data_ptr<at::BFloat16>()),
               low.mutable_data_ptr<int16_t>(), gradient.const_data_ptr<float>(),
               first_moment.mutable_data_ptr<float>(), second_moment.mutable_data_ptr<float>(), stream);
  });
}

}  // namespace temper::ops::cuda
