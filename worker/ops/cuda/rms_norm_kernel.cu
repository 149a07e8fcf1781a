// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "worker/ops/cuda/device.cuh"
#include "worker/ops/cuda/rms_norm_kernel.h"

namespace temper::ops::cuda {
namespace {

constexpr int kThreads = 256;
// A narrower row (a head's, of q/k-norms) gets one warp, a wider one a block.
constexpr int64_t kNarrow = 512;
// Enough blocks to hide the latency of memory, few enough that their partial sums cost little.
constexpr int kBlocksPerMultiprocessor = 4;

template <typename Element, int kCount, int kRowThreads>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(RmsNormRows shape, const Element* __restrict__ x, const Element* __restrict__ weight, float epsilon,
                  bool rounds_twice, Element* __restrict__ y, float* __restrict__ scale) {
  const int64_t row = blockIdx.x * int64_t{kThreads / kRowThreads} + threadIdx.x / kRowThreads;
  if (row >= shape.rows) return;
  const int lane = threadIdx.x % kRowThreads;
  const Element* x_row = x + row * shape.width;
  float squares = 0.0f;
  for (int64_t i = lane * kCount; i < shape.width; i += kRowThreads * kCount) {
    float values[kCount];
    Load(x_row + i, values);
#pragma unroll
    for (int j = 0; j < kCount; ++j) squares += values[j] * values[j];
  }
  const float row_scale = 1.0f / sqrtf(RowSum<kRowThreads>(squares) / shape.width + epsilon);
  if (lane == 0) scale[row] = row_scale;
  for (int64_t i = lane * kCount; i < shape.width; i += kRowThreads * kCount) {
    float values[kCount], weights[kCount];
    Load(x_row + i, values);
    Load(weight + i, weights);
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const float normed = values[j] * row_scale;
      values[j] = (rounds_twice ? ToFloat(FromFloat<Element>(normed)) : normed) * (weights[j] + shape.weight_offset);
    }
    Store(values, y + row * shape.width + i);
  }
}

// With n = x·s: dx = s · (g·w − n · mean(g·w·n)), dw = Σ g·n over the rows. A block takes rows in turn and keeps its
// share of dw in shared memory, where each thread owns the columns that it reads.
template <typename Element, int kCount, int kRowThreads, bool kGradX, bool kGradWeight>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(RmsNormRows shape, const Element* __restrict__ grad_y, const Element* __restrict__ x,
                   const Element* __restrict__ weight, const float* __restrict__ scale, Element* __restrict__ grad_x,
                   float* __restrict__ partial_grad_weight) {
  constexpr int kRows = kThreads / kRowThreads;
  extern __shared__ float sums[];  // [kRows, kCount, width / kCount]: neighbours in a warp are neighbours here
  const int lane = threadIdx.x % kRowThreads;
  const int64_t packs = shape.width / kCount;
  float* own_sums = sums + threadIdx.x / kRowThreads * shape.width;
  if constexpr (kGradWeight) {
    for (int64_t i = lane; i < packs; i += kRowThreads) {
#pragma unroll
      for (int j = 0; j < kCount; ++j) own_sums[j * packs + i] = 0.0f;
    }
  }
  const int64_t step = int64_t{gridDim.x} * kRows;
  for (int64_t row = blockIdx.x * int64_t{kRows} + threadIdx.x / kRowThreads; row < shape.rows; row += step) {
    const Element* grad_row = grad_y + row * shape.width;
    const Element* x_row = x + row * shape.width;
    const float row_scale = scale[row];
    float product = 0.0f;
    for (int64_t i = lane; i < packs; i += kRowThreads) {
      float grads[kCount], values[kCount], weights[kCount];
      Load(grad_row + i * kCount, grads);
      Load(x_row + i * kCount, values);
      Load(weight + i * kCount, weights);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        product += grads[j] * (weights[j] + shape.weight_offset) * values[j];
        if constexpr (kGradWeight) own_sums[j * packs + i] += grads[j] * (values[j] * row_scale);
      }
    }
    if constexpr (kGradX) {
      const float mean = RowSum<kRowThreads>(product) * row_scale / shape.width;
      for (int64_t i = lane; i < packs; i += kRowThreads) {
        float grads[kCount], values[kCount], weights[kCount];
        Load(grad_row + i * kCount, grads);
        Load(x_row + i * kCount, values);
        Load(weight + i * kCount, weights);
#pragma unroll
        for (int j = 0; j < kCount; ++j) {
          grads[j] = row_scale * (grads[j] * (weights[j] + shape.weight_offset) - values[j] * row_scale * mean);
        }
        Store(grads, grad_x + row * shape.width + i * kCount);
      }
    }
  }
  if constexpr (kGradWeight) {
    __syncthreads();
    for (int64_t i = threadIdx.x; i < shape.width; i += kThreads) {
      float sum = 0.0f;
#pragma unroll
      for (int group = 0; group < kRows; ++group) sum += sums[group * shape.width + i];
      partial_grad_weight[blockIdx.x * shape.width + i % packs * kCount + i / packs] = sum;
    }
  }
}

int64_t RowsAtOnce(const RmsNormRows& shape) { return shape.width <= kNarrow ? kThreads / kWarp : 1; }

template <typename Launch>
void WithRowThreads(const RmsNormRows& shape, const Launch& launch) {
  if (RowsAtOnce(shape) == 1) {
    launch.template operator()<kThreads>();
  } else {
    launch.template operator()<kWarp>();
  }
}

}  // namespace

void RmsNormForward(const RmsNormRows& shape, const void* x, const void* weight, float epsilon, bool rounds_twice,
                    void* y, float* scale, cudaStream_t stream) {
  WithPack(shape.type, {shape.width}, {x, weight, y}, [&]<typename Element, int kCount>() {
    WithRowThreads(shape, [&]<int kRowThreads>() {
      const auto blocks = static_cast<unsigned>(CeilDivide(shape.rows, RowsAtOnce(shape)));
      ForwardKernel<Element, kCount, kRowThreads>
          <<<blocks, kThreads, 0, stream>>>(shape, static_cast<const Element*>(x), static_cast<const Element*>(weight),
                                            epsilon, rounds_twice, static_cast<Element*>(y), scale);
    });
  });
}

int64_t RmsNormPartials(const RmsNormRows& shape) {
  const int64_t most = kBlocksPerMultiprocessor * MultiprocessorCount();
  return std::min(most, CeilDivide(shape.rows, RowsAtOnce(shape)));
}

void RmsNormBackward(const RmsNormRows& shape, const void* grad_y, const void* x, const void* weight,
                     const float* scale, void* grad_x, float* partial_grad_weight, int64_t partials,
                     cudaStream_t stream) {
  WithPack(shape.type, {shape.width}, {grad_y, x, weight, grad_x}, [&]<typename Element, int kCount>() {
    WithRowThreads(shape, [&]<int kRowThreads>() {
      const auto launch = [&](auto* kernel, int64_t blocks, int shared_bytes) {
        // Rows of more than 12,288 columns need more than a block gets without asking.
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
        kernel<<<static_cast<unsigned>(blocks), kThreads, shared_bytes, stream>>>(
            shape, static_cast<const Element*>(grad_y), static_cast<const Element*>(x),
            static_cast<const Element*>(weight), scale, static_cast<Element*>(grad_x), partial_grad_weight);
      };
      const auto shared_bytes = static_cast<int>(RowsAtOnce(shape) * shape.width * sizeof(float));
      if (partial_grad_weight == nullptr) {
        // No sums to keep: a row each, as the forward does.
        launch(BackwardKernel<Element, kCount, kRowThreads, true, false>, CeilDivide(shape.rows, RowsAtOnce(shape)), 0);
      } else if (grad_x == nullptr) {
        launch(BackwardKernel<Element, kCount, kRowThreads, false, true>, partials, shared_bytes);
      } else {
        launch(BackwardKernel<Element, kCount, kRowThreads, true, true>, partials, shared_bytes);
      }
    });
  });
}

}  // namespace temper::ops::cuda
