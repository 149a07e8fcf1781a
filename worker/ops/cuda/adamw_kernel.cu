// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cuda/adamw_kernel.h"
#include "worker/ops/cuda/device.cuh"
#include "worker/ops/master_split.h"

namespace temper::ops::cuda {
namespace {

constexpr int kThreads = 256;

// Where masters are: 4 bytes of an element are read and written either way.
struct WholeMasters {
  float* values;

  template <int kCount>
  __device__ void Read(int64_t i, float (&masters)[kCount]) const {
    Load(values + i, masters);
  }
  template <int kCount>
  __device__ void Write(int64_t i, const float (&masters)[kCount]) const {
    Store(masters, values + i);
  }
};

struct SplitMasters {
  uint16_t* high;
  int16_t* low;

  template <int kCount>
  __device__ void Read(int64_t i, float (&masters)[kCount]) const {
    const auto highs = *reinterpret_cast<const Pack<uint16_t, kCount>*>(high + i);
    const auto lows = *reinterpret_cast<const Pack<int16_t, kCount>*>(low + i);
#pragma unroll
    for (int j = 0; j < kCount; ++j) masters[j] = JoinMaster({highs.values[j], lows.values[j]});
  }
  template <int kCount>
  __device__ void Write(int64_t i, const float (&masters)[kCount]) const {
    Pack<uint16_t, kCount> highs;
    Pack<int16_t, kCount> lows;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const MasterSplit split = SplitMaster(masters[j]);
      highs.values[j] = split.high;
      lows.values[j] = split.low;
    }
    *reinterpret_cast<Pack<uint16_t, kCount>*>(high + i) = highs;
    *reinterpret_cast<Pack<int16_t, kCount>*>(low + i) = lows;
  }
};

// One pass over memory: 16 bytes read and 12 written an element.
template <typename Masters, int kCount>
__global__ void __launch_bounds__(kThreads)
    AdamWKernel(AdamWFactors factors, int64_t size, Masters masters, const float* __restrict__ gradient,
                float* __restrict__ first_moment, float* __restrict__ second_moment) {
  const int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kCount;
  if (i >= size) return;
  float weights[kCount], grads[kCount], firsts[kCount], seconds[kCount];
  masters.Read(i, weights);
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
  masters.Write(i, weights);
  Store(firsts, first_moment + i);
  Store(seconds, second_moment + i);
}

// pointers: all of them.
template <typename Masters>
void Run(const AdamWFactors& factors, int64_t size, Masters masters, const float* gradient, float* first_moment,
         float* second_moment, std::initializer_list<const void*> pointers, cudaStream_t stream) {
  WithPack(ElementType::kFloat, {size}, pointers, [&]<typename Element, int kCount>() {
    const auto blocks = static_cast<unsigned>(CeilDivide(size, int64_t{kThreads} * kCount));
    AdamWKernel<Masters, kCount>
        <<<blocks, kThreads, 0, stream>>>(factors, size, masters, gradient, first_moment, second_moment);
  });
}

}  // namespace

void AdamW(const AdamWFactors& factors, int64_t size, float* master, const float* gradient, float* first_moment,
           float* second_moment, cudaStream_t stream) {
  Run(factors, size, WholeMasters{master}, gradient, first_moment, second_moment,
      {master, gradient, first_moment, second_moment}, stream);
}

void AdamWSplit(const AdamWFactors& factors, int64_t size, uint16_t* high, int16_t* low, const float* gradient,
                float* first_moment, float* second_moment, cudaStream_t stream) {
  Run(factors, size, SplitMasters{high, low}, gradient, first_moment, second_moment,
      {high, low, gradient, first_moment, second_moment}, stream);
}

}  // namespace temper::ops::cuda
