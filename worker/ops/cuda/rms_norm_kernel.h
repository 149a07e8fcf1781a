// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "worker/ops/cuda/element_type.h"

namespace temper::ops::cuda {

struct RmsNormRows {
  ElementType type;
  int64_t rows;
  int64_t width;
  float weight_offset;
};

// y = x · scale · (weight + offset), scale = 1 / sqrt(mean(x²) + epsilon). x, y: [rows, width]; scale: [rows].
// `rounds_twice`: x · scale is rounded to the type before the product with the weight.
void RmsNormForward(const RmsNormRows& shape, const void* x, const void* weight, float epsilon, bool rounds_twice,
                    void* y, float* scale, cudaStream_t stream);

// A good number of rows for `partial_grad_weight` on the current device.
int64_t RmsNormPartials(const RmsNormRows& shape);

// Either result may be null. partial_grad_weight: [partials, width], to be summed over its rows.
void RmsNormBackward(const RmsNormRows& shape, const void* grad_y, const void* x, const void* weight,
                     const float* scale, void* grad_x, float* partial_grad_weight, int64_t partials,
                     cudaStream_t stream);

}  // namespace temper::ops::cuda
