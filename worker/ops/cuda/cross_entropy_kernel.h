// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "worker/ops/cuda/element_type.h"

namespace temper::ops::cuda {

// Rows of logits, as the LM head's product leaves them.
struct LogitRows {
  const float* logits;  // [rows, pitch]; as the gradient below, it begins at a multiple of 16 bytes
  int64_t rows;
  int64_t pitch;
  int64_t vocab_size;      // columns from here on are padding
  const int64_t* targets;  // [rows]
  float scale;             // of the logits, before the softcap
  float softcap;           // 0: none
};

// What the gradient of a row is made of; see DistributionPenalty.
struct LogitGradient {
  const float* coefficients;  // [rows], of the target's log-probability
  float uniform;
  float log_normalizer;
  float* penalties;  // [rows], or null where both factors above are 0
  ElementType type;
  void* gradient;  // [rows, pitch] of `type`; fp32 may lie where the logits do. Padding gets 0.
};

void LogprobRows(const LogitRows& rows, float* logprobs, cudaStream_t stream);

void LogprobAndGradientRows(const LogitRows& rows, const LogitGradient& gradient, float* logprobs, cudaStream_t stream);

}  // namespace temper::ops::cuda
