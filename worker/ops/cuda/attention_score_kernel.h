// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "worker/ops/cuda/element_type.h"

namespace temper::ops::cuda {

// The products q·k of a block of queries: [heads, queries, keys], fp32. The first query stands at key `before`, and at
// token `first_token` of `tokens`. See ScoreConfig for the rest.
struct AttentionScores {
  const float* products;
  int64_t heads;
  int64_t queries;
  int64_t keys;
  int64_t before;
  int64_t first_token;
  int64_t tokens;
  float scale;
  float softcap;   // 0: none
  int64_t window;  // 0: none
};

// weights: the softmax of each row, [heads, queries, keys] of `type`, 0 where a key is hidden. lse: [heads, tokens].
void AttentionWeights(const AttentionScores& scores, ElementType type, void* weights, float* lse, cudaStream_t stream);

// grad_weights: ∂loss/∂weights, fp32. delta: [tokens, heads], Σ grad_out · out of each row. Computes the weights again,
// and the gradient of the products; both are of `type`.
void AttentionScoreGradient(const AttentionScores& scores, const float* lse, const float* grad_weights,
                            const float* delta, ElementType type, void* weights, void* grad_products,
                            cudaStream_t stream);

}  // namespace temper::ops::cuda
