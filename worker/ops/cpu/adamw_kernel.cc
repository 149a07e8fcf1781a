// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/adamw_kernel.h"

#include "worker/ops/master_split.h"

// Plain loops: the compiler finds the vectors itself, square roots included.

namespace temper::ops::cpu::TEMPER_ISA {
namespace {

inline __attribute__((always_inline)) float Updated(const AdamWFactors& f, float master, float gradient, float& first,
                                                    float& second) {
  const float scaled = gradient * f.gradient_scale;
  first += f.first_share * (scaled - first);
  second = second * f.beta2 + f.second_share * scaled * scaled;
  const float denominator = __builtin_sqrtf(second) * f.inverse_correction + f.epsilon;
  return master * f.decay - f.step_size * (first / denominator);
}

void Update(const AdamWFactors& factors, int64_t size, float* __restrict master, const float* __restrict gradient,
            float* __restrict first_moment, float* __restrict second_moment) {
  const AdamWFactors f = factors;
  for (int64_t i = 0; i < size; ++i) {
    float first = first_moment[i], second = second_moment[i];
    master[i] = Updated(f, master[i], gradient[i], first, second);
    first_moment[i] = first;
    second_moment[i] = second;
  }
}

void UpdateSplit(const AdamWFactors& factors, int64_t size, uint16_t* __restrict high, int16_t* __restrict low,
                 const float* __restrict gradient, float* __restrict first_moment, float* __restrict second_moment) {
  const AdamWFactors f = factors;
  for (int64_t i = 0; i < size; ++i) {
    float first = first_moment[i], second = second_moment[i];
    const MasterSplit split = SplitMaster(Updated(f, JoinMaster({high[i], low[i]}), gradient[i], first, second));
    high[i] = split.high;
    low[i] = split.low;
    first_moment[i] = first;
    second_moment[i] = second;
  }
}

}  // namespace

const AdamWKernels kAdamW = {Update, UpdateSplit};

}  // namespace temper::ops::cpu::TEMPER_ISA
