// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/chunked_cross_entropy.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "worker/ops/cpu/operators.h"
#include "worker/ops/cuda_dispatch.h"
#include "worker/ops/linear.h"
#include "worker/ops/matmul.h"

// Legend: S scored rows, C rows of one chunk, D hidden, V vocabulary with padding.

namespace temper::ops {
namespace {

// Logits of one chunk: 50 MB at a vocabulary of 49,152.
constexpr int64_t kRowsPerChunk = 256;
// Fewer with a teacher, where seven times as much is kept of a row.
constexpr int64_t kComparedRowsPerChunk = 128;

LowRankTerm ChunkOf(const LowRankTerm& term, int64_t begin, int64_t rows) {
  return term.any() ? LowRankTerm{term.inner_SR.narrow(0, begin, rows), term.outer_VR} : term;
}

// fp32, −inf in the padding. `slope`, if asked for, is what the softcap's derivative is; undefined without a softcap.
at::Tensor ChunkLogits(const at::Tensor& hidden_CD, const at::Tensor& weight_VD, int64_t vocab_size,
                       const LogitConfig& config, const LowRankTerm& low_rank, at::Tensor* slope = nullptr) {
  at::Tensor logits_CV = Linear(hidden_CD, weight_VD).to(at::kFloat);
  if (low_rank.any()) logits_CV.add_(Linear(low_rank.inner_SR, low_rank.outer_VR));
  if (config.scale != 1.0) logits_CV.mul_(config.scale);
  if (config.softcap > 0) {
    logits_CV.div_(config.softcap).tanh_();
    if (slope != nullptr) *slope = 1 - logits_CV.square();
    logits_CV.mul_(config.softcap);
  }
  if (vocab_size < logits_CV.size(1)) {
    logits_CV.narrow(1, vocab_size, logits_CV.size(1) - vocab_size).fill_(-std::numeric_limits<float>::infinity());
  }
  return logits_CV;
}

at::Tensor LogprobsOf(const at::Tensor& logits_CV, const at::Tensor& targets_C1) {
  return logits_CV.gather(1, targets_C1).squeeze(1) - logits_CV.logsumexp(1);
}

// What the rows of a chunk pay. lse_C1: log Z.
double Penalty(const at::Tensor& logits_CV, const at::Tensor& lse_C1, const DistributionPenalty& penalty) {
  double sum = penalty.log_normalizer * lse_C1.square().sum(at::kDouble).item<double>();
  if (penalty.uniform != 0) {
    sum += penalty.uniform * (lse_C1 - logits_CV.mean(1, /*keepdim=*/true)).sum(at::kDouble).item<double>();
  }
  return sum;
}

template <typename Visit>
void ForEachChunk(int64_t rows, int64_t rows_per_chunk, Visit visit) {
  for (int64_t begin = 0; begin < rows; begin += rows_per_chunk) visit(begin, std::min(rows_per_chunk, rows - begin));
}

}  // namespace

at::Tensor TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, int64_t vocab_size,
                         const at::Tensor& targets_S, const LogitConfig& config, const LowRankTerm& low_rank) {
  RETURN_IF_CUDA(hidden_SD, TokenLogprobs(hidden_SD, weight_VD, vocab_size, targets_S, config, low_rank));
  if (!low_rank.any() && cpu::CanTokenLogprobs(hidden_SD, weight_VD)) {
    return cpu::TokenLogprobs(hidden_SD, weight_VD, vocab_size, targets_S, config);
  }
  const at::NoGradGuard no_grad;
  at::Tensor logprobs_S = at::empty({hidden_SD.size(0)}, hidden_SD.options().dtype(at::kFloat));
  ForEachChunk(hidden_SD.size(0), kRowsPerChunk, [&](int64_t begin, int64_t rows) {
    const at::Tensor logits_CV =
        ChunkLogits(hidden_SD.narrow(0, begin, rows), weight_VD, vocab_size, config, ChunkOf(low_rank, begin, rows));
    const at::Tensor targets_C1 = targets_S.narrow(0, begin, rows).unsqueeze(1);
    logprobs_S.narrow(0, begin, rows).copy_(LogprobsOf(logits_CV, targets_C1));
  });
  return logprobs_S;
}

ComparedLogprobs CompareLogprobs(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, int64_t vocab_size,
                                 const at::Tensor& targets_S, const Teacher& teacher, const LogitConfig& config,
                                 const LowRankTerm& low_rank) {
  const at::NoGradGuard no_grad;
  ComparedLogprobs result{.logprobs_S = at::empty({hidden_SD.size(0)}, hidden_SD.options().dtype(at::kFloat))};
  ForEachChunk(hidden_SD.size(0), kComparedRowsPerChunk, [&](int64_t begin, int64_t rows) {
    const at::Tensor logits_CV =
        ChunkLogits(hidden_SD.narrow(0, begin, rows), weight_VD, vocab_size, config, ChunkOf(low_rank, begin, rows));
    const at::Tensor targets_C1 = targets_S.narrow(0, begin, rows).unsqueeze(1);
    result.logprobs_S.narrow(0, begin, rows).copy_(LogprobsOf(logits_CV, targets_C1));
    teacher.Compare(logits_CV.narrow(1, 0, vocab_size), targets_C1, begin, result.comparison, /*grad_CV=*/nullptr);
  });
  return result;
}

at::Tensor Logits(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, int64_t vocab_size,
                  const LogitConfig& config, const LowRankTerm& low_rank) {
  const at::NoGradGuard no_grad;
  return ChunkLogits(hidden_SD, weight_VD, vocab_size, config, low_rank).narrow(1, 0, vocab_size);
}

LogprobGradients TokenLogprobsWithGradients(const at::Tensor& hidden_SD, const at::Tensor& weight_VD,
                                            int64_t vocab_size, const at::Tensor& targets_S,
                                            const at::Tensor& coefficient_S, at::Tensor grad_weight_VD,
                                            const DistributionPenalty& penalty, const LogitConfig& config,
                                            const LowRankTerm& low_rank) {
  if (penalty.teacher == nullptr) {  // of whom kernels know nothing
    RETURN_IF_CUDA(hidden_SD, TokenLogprobsWithGradients(hidden_SD, weight_VD, vocab_size, targets_S, coefficient_S,
                                                         grad_weight_VD, penalty, config, low_rank));
    if (!low_rank.any() && cpu::CanTokenLogprobs(hidden_SD, weight_VD)) {
      return cpu::TokenLogprobsWithGradients(hidden_SD, weight_VD, vocab_size, targets_S, coefficient_S, grad_weight_VD,
                                             penalty, config);
    }
  }
  const at::NoGradGuard no_grad;
  const auto fp32 = hidden_SD.options().dtype(at::kFloat);
  LogprobGradients result;
  result.logprobs_S = at::empty({hidden_SD.size(0)}, fp32);
  result.grad_hidden_SD = at::empty_like(hidden_SD);
  if (low_rank.any()) {
    result.grad_inner_SR = at::empty_like(low_rank.inner_SR);
    result.grad_outer_VR = at::zeros(low_rank.outer_VR.sizes(), fp32);
  }
  const int64_t rows_per_chunk = penalty.teacher == nullptr ? kRowsPerChunk : kComparedRowsPerChunk;
  ForEachChunk(hidden_SD.size(0), rows_per_chunk, [&](int64_t begin, int64_t rows) {
    const at::Tensor hidden_CD = hidden_SD.narrow(0, begin, rows);
    const at::Tensor targets_C1 = targets_S.narrow(0, begin, rows).unsqueeze(1);
    const at::Tensor coefficient_C1 = coefficient_S.narrow(0, begin, rows).unsqueeze(1);
    at::Tensor slope_CV;
    const LowRankTerm term = ChunkOf(low_rank, begin, rows);
    at::Tensor logits_CV = ChunkLogits(hidden_CD, weight_VD, vocab_size, config, term, &slope_CV);
    const at::Tensor lse_C1 = logits_CV.logsumexp(1, /*keepdim=*/true);
    result.logprobs_S.narrow(0, begin, rows).copy_((logits_CV.gather(1, targets_C1) - lse_C1).squeeze(1));
    at::Tensor softmax_factor_C1 = coefficient_C1.neg();
    if (penalty.any()) {
      result.penalty += Penalty(logits_CV.narrow(1, 0, vocab_size), lse_C1, penalty);
      // ∂(−mean logprob)/∂logits = softmax − 1/V, ∂log²Z/∂logits = 2 log Z · softmax.
      softmax_factor_C1 = softmax_factor_C1 + penalty.uniform + 2 * penalty.log_normalizer * lse_C1;
    }
    at::Tensor divergence_CV;
    if (penalty.teacher != nullptr) {
      penalty.teacher->Compare(logits_CV.narrow(1, 0, vocab_size), targets_C1, begin, result.comparison,
                               &divergence_CV);
    }
    // ∂logprob/∂logits = onehot(target) − softmax; in place of the logits.
    at::Tensor grad_CV = logits_CV.sub_(lse_C1).exp_().mul_(softmax_factor_C1);
    if (penalty.uniform != 0) {
      grad_CV.narrow(1, 0, vocab_size).sub_(penalty.uniform / static_cast<double>(vocab_size));
    }
    grad_CV.scatter_add_(1, targets_C1, coefficient_C1);
    if (divergence_CV.defined()) grad_CV.narrow(1, 0, divergence_CV.size(1)).add_(divergence_CV, penalty.divergence);
    if (slope_CV.defined()) grad_CV.mul_(slope_CV);
    if (config.scale != 1.0) grad_CV.mul_(config.scale);
    grad_CV = grad_CV.to(hidden_SD.scalar_type());
    MatMulInto(result.grad_hidden_SD.narrow(0, begin, rows), grad_CV, weight_VD);
    if (term.any()) {
      MatMulInto(result.grad_inner_SR.narrow(0, begin, rows), grad_CV, term.outer_VR);
      AddWeightGradient(grad_CV, term.inner_SR, result.grad_outer_VR);
    }
    if (grad_weight_VD.defined()) AddWeightGradient(grad_CV, hidden_CD, grad_weight_VD);
  });
  result.penalty += penalty.divergence * result.comparison.divergence;
  return result;
}

}  // namespace temper::ops
