// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/chunked_cross_entropy.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "worker/ops/cuda/cross_entropy_kernel.h"
#include "worker/ops/cuda/launch.h"
#include "worker/ops/cuda/operators.h"

// Legend: S scored rows, C rows of one chunk, D hidden, V vocabulary with padding.

namespace temper::ops::cuda {
namespace {

// Of a chunk: 1 GiB in fp32. Each chunk reads and writes the weight's whole gradient, so few large ones are fastest.
constexpr int64_t kLogitsPerChunk = int64_t{1} << 28;
constexpr int64_t kRowsAtLeast = 256;

int64_t RowsPerChunk(int64_t rows, int64_t vocab) {
  // A multiple of 128, the height of a matrix product's tiles.
  return std::min(rows, std::max(kRowsAtLeast, kLogitsPerChunk / vocab / 128 * 128));
}

// sum += a · b, fp32, whatever dtype the factors have.
void AddProduct(at::Tensor sum, const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() == at::kFloat) {
    sum.addmm_(a, b);
  } else {
    at::addmm_out(sum, sum, a, b, at::kFloat);
  }
}

LowRankTerm ChunkOf(const LowRankTerm& term, int64_t begin, int64_t rows) {
  return term.any() ? LowRankTerm{term.inner_SR.narrow(0, begin, rows), term.outer_VR} : term;
}

// The logits are fp32 out of the product: bf16 ones would lose what tells close tokens apart.
void ChunkLogits(const at::Tensor& hidden_CD, const at::Tensor& weight_VD, const LowRankTerm& low_rank,
                 at::Tensor logits_CV) {
  if (hidden_CD.scalar_type() == at::kFloat) {
    at::mm_out(logits_CV, hidden_CD, weight_VD.t());
  } else {
    at::mm_out(logits_CV, hidden_CD, weight_VD.t(), at::kFloat);
  }
  if (low_rank.any()) AddProduct(logits_CV, low_rank.inner_SR, low_rank.outer_VR.t());
}

// Rows of one chunk and where their logits are.
LogitRows RowsOf(const at::Tensor& logits_CV, int64_t vocab_size, const at::Tensor& targets_C,
                 const LogitConfig& config) {
  return {.logits = logits_CV.const_data_ptr<float>(),
          .rows = logits_CV.size(0),
          .pitch = logits_CV.size(1),
          .vocab_size = vocab_size,
          .targets = targets_C.const_data_ptr<int64_t>(),
          .scale = static_cast<float>(config.scale),
          .softcap = static_cast<float>(config.softcap)};
}

}  // namespace

at::Tensor TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, int64_t vocab_size,
                         const at::Tensor& targets_any, const LogitConfig& config, const LowRankTerm& low_rank) {
  const at::NoGradGuard no_grad;
  const auto fp32 = hidden_SD.options().dtype(at::kFloat);
  const int64_t rows = hidden_SD.size(0), chunk = RowsPerChunk(rows, weight_VD.size(0));
  const at::Tensor targets_S = targets_any.contiguous();
  at::Tensor logprobs_S = at::empty({rows}, fp32);
  const at::Tensor buffer_CV = at::empty({chunk, weight_VD.size(0)}, fp32);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const at::Tensor logits_CV = buffer_CV.narrow(0, 0, count);
    ChunkLogits(hidden_SD.narrow(0, begin, count), weight_VD, ChunkOf(low_rank, begin, count), logits_CV);
    Launch(logits_CV, [&](cudaStream_t stream) {
      LogprobRows(RowsOf(logits_CV, vocab_size, targets_S.narrow(0, begin, count), config),
                  logprobs_S.mutable_data_ptr<float>() + begin, stream);
    });
  }
  return logprobs_S;
}

LogprobGradients TokenLogprobsWithGradients(const at::Tensor& hidden_SD, const at::Tensor& weight_VD,
                                            int64_t vocab_size, const at::Tensor& targets_any,
                                            const at::Tensor& coefficient_any, at::Tensor grad_weight_VD,
                                            const DistributionPenalty& penalty, const LogitConfig& config,
                                            const LowRankTerm& low_rank) {
  const at::NoGradGuard no_grad;
  const auto fp32 = hidden_SD.options().dtype(at::kFloat);
  const bool is_fp32 = hidden_SD.scalar_type() == at::kFloat;
  const int64_t rows = hidden_SD.size(0), vocab = weight_VD.size(0), chunk = RowsPerChunk(rows, vocab);
  const at::Tensor targets_S = targets_any.contiguous(), coefficient_S = coefficient_any.contiguous();
  LogprobGradients result;
  result.logprobs_S = at::empty({rows}, fp32);
  result.grad_hidden_SD = at::empty_like(hidden_SD);
  if (low_rank.any()) {
    result.grad_inner_SR = at::empty_like(low_rank.inner_SR);
    result.grad_outer_VR = at::zeros(low_rank.outer_VR.sizes(), fp32);
  }
  at::Tensor penalty_S;
  if (penalty.any()) penalty_S = at::empty({rows}, fp32);
  const at::Tensor logits_buffer_CV = at::empty({chunk, vocab}, fp32);
  const at::Tensor grad_buffer_CV = is_fp32 ? logits_buffer_CV : at::empty({chunk, vocab}, hidden_SD.options());
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const at::Tensor hidden_CD = hidden_SD.narrow(0, begin, count);
    const at::Tensor logits_CV = logits_buffer_CV.narrow(0, 0, count);
    const at::Tensor grad_CV = grad_buffer_CV.narrow(0, 0, count);
    const LowRankTerm term = ChunkOf(low_rank, begin, count);
    ChunkLogits(hidden_CD, weight_VD, term, logits_CV);
    const LogitGradient gradient = {
        .coefficients = coefficient_S.const_data_ptr<float>() + begin,
        .uniform = static_cast<float>(penalty.uniform),
        .log_normalizer = static_cast<float>(penalty.log_normalizer),
        .penalties = penalty_S.defined() ? penalty_S.mutable_data_ptr<float>() + begin : nullptr,
        .type = ElementTypeOf(hidden_SD),
        .gradient = grad_CV.mutable_data_ptr()};
    Launch(logits_CV, [&](cudaStream_t stream) {
      LogprobAndGradientRows(RowsOf(logits_CV, vocab_size, targets_S.narrow(0, begin, count), config), gradient,
                             result.logprobs_S.mutable_data_ptr<float>() + begin, stream);
    });
    at::Tensor grad_hidden_CD = result.grad_hidden_SD.narrow(0, begin, count);
    at::mm_out(grad_hidden_CD, grad_CV, weight_VD);
    if (term.any()) {
      at::Tensor grad_inner_CR = result.grad_inner_SR.narrow(0, begin, count);
      at::mm_out(grad_inner_CR, grad_CV, term.outer_VR);
      AddProduct(result.grad_outer_VR, grad_CV.t(), term.inner_SR);
    }
    if (grad_weight_VD.defined()) AddProduct(grad_weight_VD, grad_CV.t(), hidden_CD);
  }
  if (penalty_S.defined()) result.penalty = penalty_S.sum(at::kDouble).item<double>();
  return result;
}

}  // namespace temper::ops::cuda
