// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/ops/logit_config.h"
#include "worker/ops/teacher.h"

namespace temper::ops {

// Log-probabilities of given tokens under softmax(LogitConfig(hidden · weightᵀ)), and their gradients, a chunk of rows
// at a time: the S × V logits never exist. Not recorded by autograd; callers chain the gradients themselves.
//
// hidden_SD: fp32 or bf16. weight_VD: the same dtype; rows from `vocab_size` on are padding that no probability goes
// to. targets_S: int64, below vocab_size. Softmax and sums are fp32. coefficient_S: fp32, ∂loss/∂logprob of each row.

// What a row pays for its whole distribution, beside what its target's log-probability is worth.
struct DistributionPenalty {
  double uniform = 0;         // times −mean over the vocabulary of the log-probabilities: label smoothing
  double log_normalizer = 0;  // times log²Z, Z the softmax's normaliser: z-loss
  double divergence = 0;      // times how far it is from the teacher's
  const Teacher* teacher = nullptr;

  bool any() const { return uniform != 0 || log_normalizer != 0; }
};

// What is added to the product: inner · outerᵀ (an adapter on the weight). Absent when its tensors are undefined; all
// have hidden's dtype.
struct LowRankTerm {
  at::Tensor inner_SR;
  at::Tensor outer_VR;

  bool any() const { return inner_SR.defined(); }
};

struct LogprobGradients {
  at::Tensor logprobs_S;         // fp32
  at::Tensor grad_hidden_SD;     // hidden's dtype
  at::Tensor grad_inner_SR;      // hidden's dtype; of a low-rank term, as the next
  at::Tensor grad_outer_VR;      // fp32
  double penalty = 0;            // sum over the rows
  TeacherComparison comparison;  // with the penalty's teacher, where it has one
};

// Forward alone. [S] fp32.
at::Tensor TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, int64_t vocab_size,
                         const at::Tensor& targets_S, const LogitConfig& config = {}, const LowRankTerm& low_rank = {});

// The same, compared with a teacher.
struct ComparedLogprobs {
  at::Tensor logprobs_S;
  TeacherComparison comparison;
};
ComparedLogprobs CompareLogprobs(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, int64_t vocab_size,
                                 const at::Tensor& targets_S, const Teacher& teacher, const LogitConfig& config = {},
                                 const LowRankTerm& low_rank = {});

// The logits themselves, fp32 [S, vocab]: for comparing models, never for training.
at::Tensor Logits(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, int64_t vocab_size,
                  const LogitConfig& config = {}, const LowRankTerm& low_rank = {});

// Forward and backward in one pass over the logits, for losses whose coefficients are known beforehand, or second pass
// of those whose are not. `penalty` is part of the loss, and of the gradients. Adds the weight's gradient to
// grad_weight_VD (fp32) when that is defined.
LogprobGradients TokenLogprobsWithGradients(const at::Tensor& hidden_SD, const at::Tensor& weight_VD,
                                            int64_t vocab_size, const at::Tensor& targets_S,
                                            const at::Tensor& coefficient_S, at::Tensor grad_weight_VD,
                                            const DistributionPenalty& penalty = {}, const LogitConfig& config = {},
                                            const LowRankTerm& low_rank = {});

}  // namespace temper::ops
