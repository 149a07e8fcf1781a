// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "worker/ops/cuda/element_type.h"

namespace temper::ops::cuda {

// x: [tokens, heads, width], the last dimension dense. Its first 2·half dimensions are rotated.
struct RopeShape {
  ElementType type;
  int64_t tokens;
  int64_t heads;
  int64_t width;
  int64_t half;
  int64_t token_stride;  // of x, in elements
  int64_t head_stride;
};

// out: dense. cos, sin: [tokens, half]. direction: 1, or −1 for the transpose.
void Rope(const RopeShape& shape, const void* x, const float* cos, const float* sin, float direction, void* out,
          cudaStream_t stream);

}  // namespace temper::ops::cuda
