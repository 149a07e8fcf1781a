// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace temper::ops::cuda {

// AdamWCoefficients, with all that does not depend on the element already computed.
struct AdamWFactors {
  float gradient_scale;
  float decay;        // 1 − learning rate · weight decay
  float first_share;  // 1 − beta1
  float beta2;
  float second_share;        // 1 − beta2
  float inverse_correction;  // 1 / sqrt(1 − beta2^step)
  float epsilon;
  float step_size;  // learning rate / (1 − beta1^step)
};

// `size` elements of each, in place; `gradient` is read only.
void AdamW(const AdamWFactors& factors, int64_t size, float* master, const float* gradient, float* first_moment,
           float* second_moment, cudaStream_t stream);

}  // namespace temper::ops::cuda
