// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cuda/device.cuh"
#include "worker/ops/cuda/embedding_kernel.h"

namespace temper::ops::cuda {
namespace {

constexpr int kThreads = 128;

// The block of a token's first place sums all of its places, so nothing is added atomically and the order is fixed.
template <typename Element, int kCount>
__global__ void __launch_bounds__(kThreads)
    EmbeddingKernel(int64_t tokens, int64_t width, const int64_t* __restrict__ sorted_tokens,
                    const int64_t* __restrict__ order, const Element* __restrict__ grad,
                    float* __restrict__ grad_weight) {
  const int64_t token = sorted_tokens[blockIdx.x];
  if (blockIdx.x > 0 && sorted_tokens[blockIdx.x - 1] == token) return;
  const int64_t column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kCount;
  if (column >= width) return;
  float sums[kCount];
  Load(grad_weight + token * width + column, sums);
  for (int64_t i = blockIdx.x; i < tokens && sorted_tokens[i] == token; ++i) {
    float grads[kCount];
    Load(grad + order[i] * width + column, grads);
#pragma unroll
    for (int j = 0; j < kCount; ++j) sums[j] += grads[j];
  }
  Store(sums, grad_weight + token * width + column);
}

}  // namespace

void EmbeddingGradient(ElementType type, int64_t tokens, int64_t width, const int64_t* sorted_tokens,
                       const int64_t* order, const void* grad, float* grad_weight, cudaStream_t stream) {
  WithPack(type, {width}, {grad, grad_weight}, [&]<typename Element, int kCount>() {
    const dim3 blocks(static_cast<unsigned>(tokens),
                      static_cast<unsigned>(CeilDivide(width, int64_t{kThreads} * kCount)));
    EmbeddingKernel<Element, kCount><<<blocks, kThreads, 0, stream>>>(tokens, width, sorted_tokens, order,
                                                                      static_cast<const Element*>(grad), grad_weight);
  });
}

}  // namespace temper::ops::cuda
