// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "worker/ops/activation.h"
#include "worker/ops/adamw.h"
#include "worker/ops/attention_config.h"
#include "worker/ops/chunked_cross_entropy.h"
#include "worker/ops/norm_config.h"
#include "worker/ops/rope.h"

namespace temper::ops::cpu {

// The operators of worker/ops that have kernels of their own on a CPU. Each keeps the contract of its namesake there,
// gives the same bits every time and for any number of threads, and has a Can… beside it: whether the CPU, the
// environment (TEMPER_CPU_KERNELS) and these arguments allow it.

bool CanPackedAttention(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd);
at::Tensor PackedAttention(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd,
                           const std::vector<int64_t>& document_starts, const ScoreConfig& config,
                           const at::Tensor& sinks_H = {});

// c = a·b, or added to what c holds, if `add`: fp32 matrices, or bf16 ones of which a is transposed; c is fp32.
bool CanMultiply(const at::Tensor& a_MK, const at::Tensor& b_KN, const at::Tensor& c_MN);
void Multiply(const at::Tensor& a_MK, const at::Tensor& b_KN, at::Tensor c_MN, bool add);

bool CanTokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& weight_VD);
at::Tensor TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, int64_t vocab_size,
                         const at::Tensor& targets_S, const LogitConfig& config = {});
LogprobGradients TokenLogprobsWithGradients(const at::Tensor& hidden_SD, const at::Tensor& weight_VD,
                                            int64_t vocab_size, const at::Tensor& targets_S,
                                            const at::Tensor& coefficient_S, at::Tensor grad_weight_VD,
                                            const DistributionPenalty& penalty = {}, const LogitConfig& config = {});

bool CanRmsNorm(const at::Tensor& x, const at::Tensor& weight_D);
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight_D, const NormConfig& config);
std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& x, const at::Tensor& update, const at::Tensor& weight_D,
                                             const NormConfig& config);

bool CanRmsNormRope(const at::Tensor& x_THd, const at::Tensor& weight_d);
at::Tensor RmsNormRope(const at::Tensor& x_THd, const at::Tensor& weight_d, const NormConfig& config,
                       const RopeTable& table);

bool CanApplyRope(const at::Tensor& x_THd);
at::Tensor ApplyRope(const at::Tensor& x_THd, const RopeTable& table);

bool CanGatedActivation(const at::Tensor& gate_up_TF, Activation activation);
at::Tensor GatedActivation(const at::Tensor& gate_up_TF, Activation activation);

bool CanSumOfSquares(const at::Tensor& x);
at::Tensor SumOfSquares(const at::Tensor& x);

bool CanAdamWUpdate(const at::Tensor& master);
void AdamWUpdate(at::Tensor master, const at::Tensor& gradient, at::Tensor first_moment, at::Tensor second_moment,
                 const AdamWCoefficients& coefficients);
void AdamWUpdateSplit(at::Tensor high, at::Tensor low, const at::Tensor& gradient, at::Tensor first_moment,
                      at::Tensor second_moment, const AdamWCoefficients& coefficients);

}  // namespace temper::ops::cpu
