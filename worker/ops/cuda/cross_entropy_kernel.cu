// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cuda/cross_entropy_kernel.h"
#include "worker/ops/cuda/device.cuh"

namespace temper::ops::cuda {
namespace {

constexpr int kThreads = 512;

// The logit after scale and softcap, and its derivative by what came in.
struct Capped {
  float value;
  float slope;
};

__device__ Capped Cap(float logit, const LogitRows& rows) {
  if (rows.softcap == 0.0f) return {logit * rows.scale, rows.scale};
  const float tanh = tanhf(logit * rows.scale / rows.softcap);
  return {rows.softcap * tanh, (1.0f - tanh * tanh) * rows.scale};
}

// A block a row, which it reads once for the log-sum-exp, and once more, from its end back, for the gradient: what was
// read last is the likeliest to be in a cache.
template <typename Element, int kCount, bool kGradient>
__global__ void __launch_bounds__(kThreads)
    CrossEntropyKernel(LogitRows rows, LogitGradient gradient, float* logprobs) {
  const int64_t row = blockIdx.x, target = rows.targets[row];
  // Not __restrict__: the gradient may take the logits' place.
  const float* logits = rows.logits + row * rows.pitch;
  const float target_logit = Cap(logits[target], rows).value;
  LogSumExp own;
  float sum_of_logits = 0.0f;
  for (int64_t i = threadIdx.x * kCount; i < rows.vocab_size; i += kThreads * kCount) {
    float values[kCount];
    Load(logits + i, values);
    float top = -INFINITY;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const bool in_vocabulary = i + j < rows.vocab_size;
      values[j] = in_vocabulary ? Cap(values[j], rows).value : -INFINITY;
      if (in_vocabulary) sum_of_logits += values[j];
      top = fmaxf(top, values[j]);
    }
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kCount; ++j) sum += expf(values[j] - top);
    own.Merge({top, sum});
  }
  const float lse = BlockMerge<kThreads>(own).value();
  if (threadIdx.x == 0) logprobs[row] = target_logit - lse;
  if constexpr (kGradient) {
    const float coefficient = gradient.coefficients[row];
    // ∂logprob/∂logits = onehot(target) − softmax, ∂(−mean logprob)/∂logits = softmax − 1/V,
    // ∂log²Z/∂logits = 2 log Z · softmax.
    const float softmax_factor = gradient.uniform + 2.0f * gradient.log_normalizer * lse - coefficient;
    const float everywhere = gradient.uniform / rows.vocab_size;
    if (gradient.penalties != nullptr) {
      const float mean = RowSum<kThreads>(sum_of_logits) / rows.vocab_size;
      if (threadIdx.x == 0) {
        gradient.penalties[row] = gradient.uniform * (lse - mean) + gradient.log_normalizer * lse * lse;
      }
    }
    // Every thread has read the target's logit: BlockMerge waited for all.
    Element* out = static_cast<Element*>(gradient.gradient) + row * rows.pitch;
    const int64_t packs = rows.pitch / kCount;
    for (int64_t pack = (packs - 1) / kThreads * kThreads + threadIdx.x; pack >= 0; pack -= kThreads) {
      if (pack >= packs) continue;
      float values[kCount];
      Load(logits + pack * kCount, values);
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        const int64_t column = pack * kCount + j;
        const Capped capped = Cap(values[j], rows);
        float value = expf(capped.value - lse) * softmax_factor - everywhere;
        if (column == target) value += coefficient;
        values[j] = column < rows.vocab_size ? value * capped.slope : 0.0f;
      }
      Store(values, out + pack * kCount);
    }
  }
}

// Calls launch.operator()<kCount>(). The width of an access does not depend on the gradient's type: it decides in which
// order a row is summed, and log-probabilities are to be the same with and without a gradient.
template <typename Launch>
void WithCount(const LogitRows& rows, const Launch& launch) {
  if (rows.pitch % kWidest<__nv_bfloat16> == 0) {
    launch.template operator()<kWidest<__nv_bfloat16>>();
  } else {
    launch.template operator()<1>();
  }
}

}  // namespace

void LogprobRows(const LogitRows& rows, float* logprobs, cudaStream_t stream) {
  WithCount(rows, [&]<int kCount>() {
    CrossEntropyKernel<float, kCount, false>
        <<<static_cast<unsigned>(rows.rows), kThreads, 0, stream>>>(rows, {}, logprobs);
  });
}

void LogprobAndGradientRows(const LogitRows& rows, const LogitGradient& gradient, float* logprobs,
                            cudaStream_t stream) {
  WithElement(gradient.type, [&]<typename Element>() {
    WithCount(rows, [&]<int kCount>() {
      CrossEntropyKernel<Element, kCount, true>
          <<<static_cast<unsigned>(rows.rows), kThreads, 0, stream>>>(rows, gradient, logprobs);
    });
  });
}

}  // namespace temper::ops::cuda
