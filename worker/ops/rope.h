// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/ops/rope_config.h"

namespace temper::ops {

// Rotary position embeddings (Su et al. 2021), pairs (i, i + d/2) as in HF's checkpoints.

// cos and sin of every position and pair: [T, h], fp32, h = half the rotated dimensions.
struct RopeTable {
  at::Tensor cos_Th;
  at::Tensor sin_Th;
};

// Angles of each pair at position 1, [h] fp32, for a document of `document_length` tokens (kDynamic and kLongRope look
// at it). One function a kind; each follows transformers' `modeling_rope_utils` in fp32, operation by operation.
at::Tensor RopeInverseFrequencies(const RopeConfig& config, int64_t head_dim, int64_t document_length);

// positions_T: int64, from 0 in each document. document_starts: as in MicroBatch.
RopeTable MakeRopeTable(const RopeConfig& config, int64_t head_dim, const at::Tensor& positions_T,
                        const std::vector<int64_t>& document_starts);

// The first 2h dimensions of x_THd rotated, the others as they are. The arithmetic is fp32, rounded once to x's dtype.
// Differentiable; keeps nothing but the table.
at::Tensor ApplyRope(const at::Tensor& x_THd, const RopeTable& table);

}  // namespace temper::ops
