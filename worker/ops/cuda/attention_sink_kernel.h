// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "worker/ops/cuda/element_type.h"

namespace temper::ops::cuda {

// A sink is a key of score `sinks[head]` and value 0. With lse the log-sum-exp of a row without it and
// lse' = log(exp(lse) + exp(sink)), the row's output is multiplied by exp(lse − lse'). Derived from the softmax, for
// any attention kernel that returns its log-sum-exp.
struct AttentionRows {
  ElementType type;
  int64_t tokens;
  int64_t heads;
  int64_t width;
};

// out: [tokens, heads, width], in place. lse, lse_with_sinks: [heads, tokens]. sinks: [heads], fp32.
void ApplySinks(const AttentionRows& shape, const float* sinks, const float* lse, void* out, float* lse_with_sinks,
                cudaStream_t stream);

// Each row's share of the sinks' gradient, −exp(sink − lse') · Σ grad_out · out: [heads, tokens].
void SinkGradient(const AttentionRows& shape, const float* sinks, const float* lse_with_sinks, const void* grad_out,
                  const void* out, float* grad, cudaStream_t stream);

}  // namespace temper::ops::cuda
