// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "worker/ops/cuda/device.cuh"
#include "worker/ops/cuda/gated_activation_kernel.h"

namespace temper::ops::cuda {
namespace {

constexpr int64_t kThreads = 256;

// An activation's value and slope at one gate.
struct Activated {
  float value;
  float slope;
};

template <Activation kActivation>
__device__ Activated Activate(float gate) {
  if constexpr (kActivation == Activation::kSilu) {
    const float sigmoid = 1.0f / (1.0f + expf(-gate));
    return {gate * sigmoid, sigmoid * (1.0f + gate * (1.0f - sigmoid))};
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    constexpr float kScale = 0.7978845608028654f;  // sqrt(2/π)
    constexpr float kCubic = 0.044715f;
    const float tanh = tanhf(kScale * (gate + kCubic * gate * gate * gate));
    const float inner = kScale * (1.0f + 3.0f * kCubic * gate * gate);
    return {0.5f * gate * (1.0f + tanh), 0.5f * (1.0f + tanh) + 0.5f * gate * (1.0f - tanh * tanh) * inner};
  } else if constexpr (kActivation == Activation::kGelu) {
    constexpr float kHalfRoot = 0.7071067811865476f;  // sqrt(1/2)
    constexpr float kDensity = 0.3989422804014327f;   // 1/sqrt(2π)
    const float share = 0.5f * (1.0f + erff(gate * kHalfRoot));
    return {gate * share, share + gate * kDensity * expf(-0.5f * gate * gate)};
  } else {
    const float clamped = fminf(gate, 7.0f);
    const float sigmoid = 1.0f / (1.0f + expf(-1.702f * clamped));
    const float slope = sigmoid * (1.0f + 1.702f * clamped * (1.0f - sigmoid));
    return {clamped * sigmoid, gate <= 7.0f ? slope : 0.0f};
  }
}

// What the other half is multiplied as, and its slope.
template <Activation kActivation>
__device__ Activated Linear(float up) {
  if constexpr (kActivation == Activation::kClampedSwiGlu) {
    return {fminf(fmaxf(up, -7.0f), 7.0f) + 1.0f, fabsf(up) <= 7.0f ? 1.0f : 0.0f};
  } else {
    return {up, 1.0f};
  }
}

template <typename Element, int kCount, Activation kActivation>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(int64_t width, const Element* __restrict__ gate_up, Element* __restrict__ out) {
  const int64_t row = blockIdx.x, column = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kCount;
  if (column >= width) return;
  float gates[kCount], ups[kCount];
  Load(gate_up + row * 2 * width + column, gates);
  Load(gate_up + row * 2 * width + width + column, ups);
#pragma unroll
  for (int j = 0; j < kCount; ++j) gates[j] = Activate<kActivation>(gates[j]).value * Linear<kActivation>(ups[j]).value;
  Store(gates, out + row * width + column);
}

template <typename Element, int kCount, Activation kActivation>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(int64_t width, const Element* __restrict__ gate_up, const Element* __restrict__ grad_out,
                   Element* __restrict__ grad_gate_up) {
  const int64_t row = blockIdx.x, column = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kCount;
  if (column >= width) return;
  float gates[kCount], ups[kCount], grads[kCount];
  Load(gate_up + row * 2 * width + column, gates);
  Load(gate_up + row * 2 * width + width + column, ups);
  Load(grad_out + row * width + column, grads);
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const Activated gate = Activate<kActivation>(gates[j]), up = Linear<kActivation>(ups[j]);
    gates[j] = grads[j] * up.value * gate.slope;
    ups[j] = grads[j] * gate.value * up.slope;
  }
  Store(gates, grad_gate_up + row * 2 * width + column);
  Store(ups, grad_gate_up + row * 2 * width + width + column);
}

// Calls launch.operator()<kActivation>(blocks, threads).
template <typename Launch>
void WithActivation(Activation activation, int64_t rows, int64_t packs, const Launch& launch) {
  const int64_t threads = std::min(CeilDivide(packs, kWarp) * kWarp, kThreads);
  const dim3 blocks(static_cast<unsigned>(rows), static_cast<unsigned>(CeilDivide(packs, threads)));
  const auto block = static_cast<unsigned>(threads);
  switch (activation) {
    case Activation::kSilu:
      return launch.template operator()<Activation::kSilu>(blocks, block);
    case Activation::kGeluTanh:
      return launch.template operator()<Activation::kGeluTanh>(blocks, block);
    case Activation::kGelu:
      return launch.template operator()<Activation::kGelu>(blocks, block);
    case Activation::kClampedSwiGlu:
      return launch.template operator()<Activation::kClampedSwiGlu>(blocks, block);
  }
}

}  // namespace

void GatedActivationForward(Activation activation, ElementType type, int64_t rows, int64_t width, const void* gate_up,
                            void* out, cudaStream_t stream) {
  WithPack(type, {width}, {gate_up, out}, [&]<typename Element, int kCount>() {
    WithActivation(activation, rows, width / kCount, [&]<Activation kActivation>(dim3 blocks, unsigned threads) {
      ForwardKernel<Element, kCount, kActivation>
          <<<blocks, threads, 0, stream>>>(width, static_cast<const Element*>(gate_up), static_cast<Element*>(out));
    });
  });
}

void GatedActivationBackward(Activation activation, ElementType type, int64_t rows, int64_t width, const void* gate_up,
                             const void* grad_out, void* grad_gate_up, cudaStream_t stream) {
  WithPack(type, {width}, {gate_up, grad_out, grad_gate_up}, [&]<typename Element, int kCount>() {
    WithActivation(activation, rows, width / kCount, [&]<Activation kActivation>(dim3 blocks, unsigned threads) {
      BackwardKernel<Element, kCount, kActivation>
          <<<blocks, threads, 0, stream>>>(width, static_cast<const Element*>(gate_up),
                                           static_cast<const Element*>(grad_out), static_cast<Element*>(grad_gate_up));
    });
  });
}

}  // namespace temper::ops::cuda
