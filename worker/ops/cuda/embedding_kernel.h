// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "worker/ops/cuda/element_type.h"

namespace temper::ops::cuda {

// Adds row `order[i]` of grad [tokens, width] to row `sorted_tokens[i]` of grad_weight [vocabulary, width], in the
// order of i. sorted_tokens: ascending; order: where each stood before.
void EmbeddingGradient(ElementType type, int64_t tokens, int64_t width, const int64_t* sorted_tokens,
                       const int64_t* order, const void* grad, float* grad_weight, cudaStream_t stream);

}  // namespace temper::ops::cuda
