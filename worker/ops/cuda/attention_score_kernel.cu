// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cuda/attention_score_kernel.h"
#include "worker/ops/cuda/device.cuh"

namespace temper::ops::cuda {
namespace {

constexpr int kThreads = 256;

// The score after scale and softcap, and its derivative by the product.
struct Score {
  float value;
  float slope;
};

__device__ Score Cap(float product, const AttentionScores& scores) {
  if (scores.softcap == 0.0f) return {product * scores.scale, scores.scale};
  const float tanh = tanhf(product * scores.scale / scores.softcap);
  return {scores.softcap * tanh, (1.0f - tanh * tanh) * scores.scale};
}

// The keys that a query sees: [begin, end).
struct Visible {
  int64_t begin;
  int64_t end;
};

__device__ Visible VisibleKeys(const AttentionScores& scores, int64_t query) {
  const int64_t end = scores.before + query + 1;
  return {scores.window > 0 && end > scores.window ? end - scores.window : 0, end};
}

// In both kernels a block has one row: one query of one head.

template <typename Element>
__global__ void __launch_bounds__(kThreads)
    WeightsKernel(AttentionScores scores, Element* __restrict__ weights, float* __restrict__ lse) {
  const int64_t query = blockIdx.x, head = blockIdx.y, row = head * scores.queries + query;
  const float* products = scores.products + row * scores.keys;
  const Visible visible = VisibleKeys(scores, query);
  LogSumExp own;
  for (int64_t key = visible.begin + threadIdx.x; key < visible.end; key += kThreads) {
    own.Add(Cap(products[key], scores).value);
  }
  const float row_lse = BlockMerge<kThreads>(own).value();
  if (threadIdx.x == 0) lse[head * scores.tokens + scores.first_token + query] = row_lse;
  for (int64_t key = threadIdx.x; key < scores.keys; key += kThreads) {
    const bool seen = key >= visible.begin && key < visible.end;
    weights[row * scores.keys + key] =
        FromFloat<Element>(seen ? expf(Cap(products[key], scores).value - row_lse) : 0.0f);
  }
}

template <typename Element>
__global__ void __launch_bounds__(kThreads)
    GradientKernel(AttentionScores scores, const float* __restrict__ lse, const float* __restrict__ grad_weights,
                   const float* __restrict__ delta, Element* __restrict__ weights,
                   Element* __restrict__ grad_products) {
  const int64_t query = blockIdx.x, head = blockIdx.y, row = head * scores.queries + query;
  const int64_t token = scores.first_token + query;
  const Visible visible = VisibleKeys(scores, query);
  const float row_lse = lse[head * scores.tokens + token], row_delta = delta[token * scores.heads + head];
  for (int64_t key = threadIdx.x; key < scores.keys; key += kThreads) {
    const int64_t place = row * scores.keys + key;
    float weight = 0.0f, grad = 0.0f;
    if (key >= visible.begin && key < visible.end) {
      const Score score = Cap(scores.products[place], scores);
      weight = expf(score.value - row_lse);
      grad = weight * (grad_weights[place] - row_delta) * score.slope;
    }
    weights[place] = FromFloat<Element>(weight);
    grad_products[place] = FromFloat<Element>(grad);
  }
}

dim3 Blocks(const AttentionScores& scores) {
  return dim3(static_cast<unsigned>(scores.queries), static_cast<unsigned>(scores.heads));
}

}  // namespace

void AttentionWeights(const AttentionScores& scores, ElementType type, void* weights, float* lse, cudaStream_t stream) {
  WithElement(type, [&]<typename Element>() {
    WeightsKernel<Element><<<Blocks(scores), kThreads, 0, stream>>>(scores, static_cast<Element*>(weights), lse);
  });
}

void AttentionScoreGradient(const AttentionScores& scores, const float* lse, const float* grad_weights,
                            const float* delta, ElementType type, void* weights, void* grad_products,
                            cudaStream_t stream) {
  WithElement(type, [&]<typename Element>() {
    GradientKernel<Element><<<Blocks(scores), kThreads, 0, stream>>>(
        scores, lse, grad_weights, delta, static_cast<Element*>(weights), static_cast<Element*>(grad_products));
  });
}

}  // namespace temper::ops::cuda
