// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/ops/attention_config.h"

// The two ways that PackedAttention goes on CUDA, without sinks and not recorded by autograd. Shapes and
// document_starts as in worker/ops/packed_attention.h.

namespace temper::ops::cuda {

struct AttentionOutput {
  at::Tensor out_THd;
  at::Tensor lse_HT;  // fp32: the log-sum-exp of each row
};

struct AttentionGradients {
  at::Tensor q_THd;
  at::Tensor k_TKd;
  at::Tensor v_TKd;
};

// What a backward pass starts from. With sinks, the output and the log-sum-exp are those with sinks: the formulas stay.
struct AttentionBackwardInput {
  at::Tensor grad_out_THd;
  at::Tensor q_THd;
  at::Tensor k_TKd;
  at::Tensor v_TKd;
  AttentionOutput output;
};

// Flash attention (Dao 2023), ATen's. Needs bf16, d a multiple of 8 and at most 256, and no softcap.
bool CanFlash(const at::Tensor& q_THd, const ScoreConfig& config);
AttentionOutput FlashForward(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd,
                             const std::vector<int64_t>& document_starts, const ScoreConfig& config);
AttentionGradients FlashBackward(const AttentionBackwardInput& input, const std::vector<int64_t>& document_starts,
                                 const ScoreConfig& config);

// Batched products and a kernel for what is between them; memory grows with the longest document, not its square.
AttentionOutput BlockForward(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd,
                             const std::vector<int64_t>& document_starts, const ScoreConfig& config);
AttentionGradients BlockBackward(const AttentionBackwardInput& input, const std::vector<int64_t>& document_starts,
                                 const ScoreConfig& config);

}  // namespace temper::ops::cuda
