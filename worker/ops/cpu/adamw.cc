// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/adamw.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "worker/ops/cpu/adamw_kernel.h"
#include "worker/ops/cpu/instruction_set.h"
#include "worker/ops/cpu/operators.h"

namespace temper::ops::cpu {
namespace {

// Elements that are worth a thread of their own.
constexpr int64_t kGrain = 1 << 15;

const AdamWKernels& Chosen() { return Choose(avx2::kAdamW, avx512::kAdamW); }

void CheckDense(std::initializer_list<at::Tensor> tensors) {
  for (const at::Tensor& tensor : tensors) {
    TORCH_CHECK(tensor.is_contiguous() && tensor.numel() == tensors.begin()->numel(),
                "AdamW needs dense tensors of one shape");
  }
}

}  // namespace

bool CanAdamWUpdate(const at::Tensor& master) { return Kernels() != InstructionSet::kNone && master.is_cpu(); }

void AdamWUpdate(at::Tensor master, const at::Tensor& gradient, at::Tensor first_moment, at::Tensor second_moment,
                 const AdamWCoefficients& coefficients) {
  CheckDense({master, gradient, first_moment, second_moment});
  const AdamWFactors factors = FactorsOf(coefficients);
  float* const to = master.mutable_data_ptr<float>();
  const float* const from = gradient.const_data_ptr<float>();
  float *const first = first_moment.mutable_data_ptr<float>(), *const second = second_moment.mutable_data_ptr<float>();
  at::parallel_for(0, master.numel(), kGrain, [&](int64_t begin, int64_t end) {
    Chosen().update(factors, end - begin, to + begin, from + begin, first + begin, second + begin);
  });
}

void AdamWUpdateSplit(at::Tensor high, at::Tensor low, const at::Tensor& gradient, at::Tensor first_moment,
                      at::Tensor second_moment, const AdamWCoefficients& coefficients) {
  CheckDense({high, low, gradient, first_moment, second_moment});
  const AdamWFactors factors = FactorsOf(coefficients);
  auto* const high_to = reinterpret_cast<uint16_t*>(high.mutable_data_ptr<at::BFloat16>());
  int16_t* const low_to = low.mutable_data_ptr<int16_t>();
  const float* const from = gradient.const_data_ptr<float>();
  float *const first = first_moment.mutable_data_ptr<float>(), *const second = second_moment.mutable_data_ptr<float>();
  at::parallel_for(0, high.numel(), kGrain, [&](int64_t begin, int64_t end) {
    Chosen().update_split(factors, end - begin, high_to + begin, low_to + begin, from + begin, first + begin,
                          second + begin);
  });
}

}  // namespace temper::ops::cpu
