// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <initializer_list>

#include "worker/ops/cuda/element_type.h"

// What the kernels share: 16-byte accesses, sums over rows, and the choice of a template's arguments.

namespace temper::ops::cuda {

constexpr int kWarp = 32;

// Accesses of 16 bytes.
template <typename Element>
constexpr int kWidest = 16 / sizeof(Element);

template <typename Element, int kCount>
struct alignas(sizeof(Element) * kCount) Pack {
  Element values[kCount];
};

__device__ inline float ToFloat(float value) { return value; }
__device__ inline float ToFloat(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename Element>
__device__ Element FromFloat(float value) {
  if constexpr (sizeof(Element) == sizeof(float)) {
    return value;
  } else {
    return __float2bfloat16_rn(value);
  }
}

// In accesses of 16 bytes at most, which is what `from` is aligned to (or to the whole, if that is less).
template <int kCount, typename Element>
__device__ void Load(const Element* from, float (&values)[kCount]) {
  constexpr int kPiece = kCount < kWidest<Element> ? kCount : kWidest<Element>;
#pragma unroll
  for (int i = 0; i < kCount; i += kPiece) {
    const auto pack = *reinterpret_cast<const Pack<Element, kPiece>*>(from + i);
#pragma unroll
    for (int j = 0; j < kPiece; ++j) values[i + j] = ToFloat(pack.values[j]);
  }
}

template <int kCount, typename Element>
__device__ void Store(const float (&values)[kCount], Element* to) {
  constexpr int kPiece = kCount < kWidest<Element> ? kCount : kWidest<Element>;
#pragma unroll
  for (int i = 0; i < kCount; i += kPiece) {
    Pack<Element, kPiece> pack;
#pragma unroll
    for (int j = 0; j < kPiece; ++j) pack.values[j] = FromFloat<Element>(values[i + j]);
    *reinterpret_cast<Pack<Element, kPiece>*>(to + i) = pack;
  }
}

__device__ inline float WarpSum(float value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
  return value;
}

// The sum over the kThreads threads that share a row: a warp, or a whole block.
template <int kThreads>
__device__ float RowSum(float value) {
  value = WarpSum(value);
  if constexpr (kThreads == kWarp) {
    return value;
  } else {
    __shared__ float of_warps[kThreads / kWarp];
    __syncthreads();  // the last sum has been read
    if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = value;
    __syncthreads();
    return WarpSum(threadIdx.x % kWarp < kThreads / kWarp ? of_warps[threadIdx.x % kWarp] : 0.0f);
  }
}

// Running maximum and sum of exp(value − maximum).
struct LogSumExp {
  float maximum = -INFINITY;
  float sum = 0.0f;

  __device__ void Add(float value) {
    const float shrink = expf(fminf(maximum, value) - fmaxf(maximum, value));
    sum = value > maximum ? sum * shrink + 1.0f : sum + shrink;
    maximum = fmaxf(maximum, value);
  }
  __device__ void Merge(LogSumExp other) {
    const float top = fmaxf(maximum, other.maximum);
    if (top == -INFINITY) return;
    sum = sum * expf(maximum - top) + other.sum * expf(other.maximum - top);
    maximum = top;
  }
  __device__ float value() const { return maximum + logf(sum); }
};

__device__ inline LogSumExp WarpMerge(LogSumExp own) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    own.Merge({__shfl_xor_sync(~0u, own.maximum, distance), __shfl_xor_sync(~0u, own.sum, distance)});
  }
  return own;
}

// Over a block of kThreads threads.
template <int kThreads>
__device__ LogSumExp BlockMerge(LogSumExp own) {
  __shared__ float maxima[kThreads / kWarp], sums[kThreads / kWarp];
  own = WarpMerge(own);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  __syncthreads();  // the last results have been read
  if (lane == 0) maxima[warp] = own.maximum, sums[warp] = own.sum;
  __syncthreads();
  return WarpMerge(lane < kThreads / kWarp ? LogSumExp{maxima[lane], sums[lane]} : LogSumExp{});
}

inline int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int MultiprocessorCount() {
  int device = 0, count = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

// Calls launch.operator()<Element>().
template <typename Launch>
void WithElement(ElementType type, const Launch& launch) {
  if (type == ElementType::kFloat) {
    launch.template operator()<float>();
  } else {
    launch.template operator()<__nv_bfloat16>();
  }
}

// Calls launch.operator()<Element, kCount>(): kCount is the widest access where every length divides by it and every
// pointer is aligned to it, else 1.
template <typename Launch>
void WithPack(ElementType type, std::initializer_list<int64_t> lengths, std::initializer_list<const void*> pointers,
              const Launch& launch) {
  WithElement(type, [&]<typename Element>() {
    bool wide = true;
    for (const int64_t length : lengths) wide = wide && length % kWidest<Element> == 0;
    for (const void* pointer : pointers) wide = wide && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
    if (wide) {
      launch.template operator()<Element, kWidest<Element>>();
    } else {
      launch.template operator()<Element, 1>();
    }
  });
}

}  // namespace temper::ops::cuda
