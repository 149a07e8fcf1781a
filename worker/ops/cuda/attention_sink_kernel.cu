// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cuda/attention_sink_kernel.h"
#include "worker/ops/cuda/device.cuh"

namespace temper::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = kThreads / kWarp;

// In both kernels a warp has one row: one head of one token.

template <typename Element, int kCount>
__global__ void __launch_bounds__(kThreads)
    ApplyKernel(AttentionRows shape, const float* __restrict__ sinks, const float* __restrict__ lse,
                Element* __restrict__ out, float* __restrict__ lse_with_sinks) {
  const int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.x / kWarp;
  if (row >= shape.tokens * shape.heads) return;
  const int64_t token = row / shape.heads, head = row % shape.heads;
  const int lane = threadIdx.x % kWarp;
  LogSumExp both;
  both.Add(lse[head * shape.tokens + token]);
  both.Add(sinks[head]);
  const float factor = expf(lse[head * shape.tokens + token] - both.value());
  for (int64_t i = lane * kCount; i < shape.width; i += kWarp * kCount) {
    float values[kCount];
    Load(out + row * shape.width + i, values);
#pragma unroll
    for (int j = 0; j < kCount; ++j) values[j] *= factor;
    Store(values, out + row * shape.width + i);
  }
  if (lane == 0) lse_with_sinks[head * shape.tokens + token] = both.value();
}

template <typename Element, int kCount>
__global__ void __launch_bounds__(kThreads)
    GradientKernel(AttentionRows shape, const float* __restrict__ sinks, const float* __restrict__ lse_with_sinks,
                   const Element* __restrict__ grad_out, const Element* __restrict__ out, float* __restrict__ grad) {
  const int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.x / kWarp;
  if (row >= shape.tokens * shape.heads) return;
  const int64_t token = row / shape.heads, head = row % shape.heads;
  const int lane = threadIdx.x % kWarp;
  float product = 0.0f;
  for (int64_t i = lane * kCount; i < shape.width; i += kWarp * kCount) {
    float grads[kCount], values[kCount];
    Load(grad_out + row * shape.width + i, grads);
    Load(out + row * shape.width + i, values);
#pragma unroll
    for (int j = 0; j < kCount; ++j) product += grads[j] * values[j];
  }
  product = WarpSum(product);
  const int64_t place = head * shape.tokens + token;
  if (lane == 0) grad[place] = -expf(sinks[head] - lse_with_sinks[place]) * product;
}

unsigned Blocks(const AttentionRows& shape) {
  return static_cast<unsigned>(CeilDivide(shape.tokens * shape.heads, kRows));
}

}  // namespace

void ApplySinks(const AttentionRows& shape, const float* sinks, const float* lse, void* out, float* lse_with_sinks,
                cudaStream_t stream) {
  WithPack(shape.type, {shape.width}, {out}, [&]<typename Element, int kCount>() {
    ApplyKernel<Element, kCount>
        <<<Blocks(shape), kThreads, 0, stream>>>(shape, sinks, lse, static_cast<Element*>(out), lse_with_sinks);
  });
}

void SinkGradient(const AttentionRows& shape, const float* sinks, const float* lse_with_sinks, const void* grad_out,
                  const void* out, float* grad, cudaStream_t stream) {
  WithPack(shape.type, {shape.width}, {grad_out, out}, [&]<typename Element, int kCount>() {
    GradientKernel<Element, kCount><<<Blocks(shape), kThreads, 0, stream>>>(
        shape, sinks, lse_with_sinks, static_cast<const Element*>(grad_out), static_cast<const Element*>(out), grad);
  });
}

}  // namespace temper::ops::cuda
