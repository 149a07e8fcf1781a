// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/ops/activation.h"
#include "worker/ops/adamw.h"
#include "worker/ops/attention_config.h"
#include "worker/ops/chunked_cross_entropy.h"
#include "worker/ops/norm_config.h"
#include "worker/ops/rope.h"

// The operators of worker/ops that have an implementation of their own for CUDA tensors. Each keeps the contract of its
// namesake there, and gives the same bits every time. All work is put on the current stream; nothing waits for it but
// TokenLogprobsWithGradients with a penalty, which returns a number.

namespace temper::ops::cuda {

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight_D, const NormConfig& config);

at::Tensor ApplyRope(const at::Tensor& x_THd, const RopeTable& table);

at::Tensor GatedActivation(const at::Tensor& gate_up_TF, Activation activation);

// bf16 heads of up to 256 dimensions (a multiple of 8) without a softcap go through ATen's flash attention, the others
// through batched products, a block of queries at a time.
at::Tensor PackedAttention(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd,
                           const std::vector<int64_t>& document_starts, const ScoreConfig& config,
                           const at::Tensor& sinks_H = {});

at::Tensor TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, int64_t vocab_size,
                         const at::Tensor& targets_S, const LogitConfig& config = {}, const LowRankTerm& low_rank = {});

LogprobGradients TokenLogprobsWithGradients(const at::Tensor& hidden_SD, const at::Tensor& weight_VD,
                                            int64_t vocab_size, const at::Tensor& targets_S,
                                            const at::Tensor& coefficient_S, at::Tensor grad_weight_VD,
                                            const DistributionPenalty& penalty = {}, const LogitConfig& config = {},
                                            const LowRankTerm& low_rank = {});

void AdamWUpdate(at::Tensor master, const at::Tensor& gradient, at::Tensor first_moment, at::Tensor second_moment,
                 const AdamWCoefficients& coefficients);

void AdamWUpdateSplit(at::Tensor high, at::Tensor low, const at::Tensor& gradient, at::Tensor first_moment,
                      at::Tensor second_moment, const AdamWCoefficients& coefficients);

void EmbeddingBackward(const at::Tensor& grad_TD, const at::Tensor& tokens_T, at::Tensor grad_weight_VD);

}  // namespace temper::ops::cuda
