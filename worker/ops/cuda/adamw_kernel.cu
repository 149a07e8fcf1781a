// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cuda/adamw_kernel.h"
#include "worker/ops/cuda/device.cuh"

namespace temper::ops::cuda {
namespace {

constexpr int kThreads = 256;

// One pass over memory: 16 bytes read and 12 written an element.
template <int kCount>
__global__ void __launch_bounds__(kThreads)
    AdamWKernel(AdamWFactors factors, int64_t size, float* __restrict__ master, const float* __restrict__ gradient,
                float* __restrict__ first_moment, float* __restrict__ second_moment) {
  const int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kCount;
  if (i >= size) return;
  float weights[kCount], grads[kCount], firsts[kCount], seconds[kCount];
  Load(master + i, weights);
  Load(gradient + i, grads);
  Load(first_moment + i, firsts);
  Load(second_moment + i, seconds);
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const float grad = grads[j] * factors.gradient_scale;
    firsts[j] += factors.first_share * (grad - firsts[j]);
    seconds[j] = seconds[j] * factors.beta2 + factors.second_share * grad * grad;
    const float denominator = sqrtf(seconds[j]) * factors.inverse_correction + factors.epsilon;
    weights[j] = weights[j] * factors.decay - factors.step_size * (firsts[j] / denominator);
  }
  Store(weights, master + i);
  Store(firsts, first_moment + i);
  Store(seconds, second_moment + i);
}

}  // namespace

void AdamW(const AdamWFactors& factors, int64_t size, float* master, const float* gradient, float* first_moment,
           float* second_moment, cudaStream_t stream) {
  WithPack(ElementType::kFloat, {size}, {master, gradient, first_moment, second_moment},
           [&]<typename Element, int kCount>() {
             const auto blocks = static_cast<unsigned>(CeilDivide(size, int64_t{kThreads} * kCount));
             AdamWKernel<kCount>
                 <<<blocks, kThreads, 0, stream>>>(factors, size, master, gradient, first_moment, second_moment);
           });
}

}  // namespace temper::ops::cuda
