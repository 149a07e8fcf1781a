// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "worker/ops/cuda/device.cuh"
#include "worker/ops/cuda/rope_kernel.h"

namespace temper::ops::cuda {
namespace {

constexpr int64_t kThreads = 128;

// A block per token. threadIdx.x: pairs; threadIdx.y: heads, in turn, so that a thread reads its angles once.
template <typename Element, int kCount>
__global__ void __launch_bounds__(kThreads)
    RopeKernel(RopeShape shape, const Element* __restrict__ x, const float* __restrict__ cos,
               const float* __restrict__ sin, float direction, Element* __restrict__ out) {
  const int64_t token = blockIdx.x;
  const Element* x_token = x + token * shape.token_stride;
  Element* out_token = out + token * shape.heads * shape.width;
  for (int64_t i = threadIdx.x * kCount; i < shape.half; i += blockDim.x * kCount) {
    float cosines[kCount], sines[kCount];
    Load(cos + token * shape.half + i, cosines);
    Load(sin + token * shape.half + i, sines);
    for (int64_t head = threadIdx.y; head < shape.heads; head += blockDim.y) {
      float first[kCount], second[kCount];
      Load(x_token + head * shape.head_stride + i, first);
      Load(x_token + head * shape.head_stride + shape.half + i, second);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        const float turned = first[j] * cosines[j] - direction * second[j] * sines[j];
        second[j] = second[j] * cosines[j] + direction * first[j] * sines[j];
        first[j] = turned;
      }
      Store(first, out_token + head * shape.width + i);
      Store(second, out_token + head * shape.width + shape.half + i);
    }
  }
  for (int64_t head = threadIdx.y; head < shape.heads; head += blockDim.y) {
    for (int64_t i = 2 * shape.half + threadIdx.x; i < shape.width; i += blockDim.x) {
      out_token[head * shape.width + i] = x_token[head * shape.head_stride + i];
    }
  }
}

}  // namespace

void Rope(const RopeShape& shape, const void* x, const float* cos, const float* sin, float direction, void* out,
          cudaStream_t stream) {
  WithPack(shape.type, {shape.half, shape.width, shape.token_stride, shape.head_stride}, {x, out, cos, sin},
           [&]<typename Element, int kCount>() {
             const auto columns = static_cast<unsigned>(std::min(CeilDivide(shape.half, kCount), kThreads));
             const auto rows = static_cast<unsigned>(std::min(shape.heads, kThreads / columns));
             RopeKernel<Element, kCount><<<static_cast<unsigned>(shape.tokens), dim3(columns, rows), 0, stream>>>(
                 shape, static_cast<const Element*>(x), cos, sin, direction, static_cast<Element*>(out));
           });
}

}  // namespace temper::ops::cuda
