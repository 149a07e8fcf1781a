// SPDX-License-Identifier: Apache-2.0
#include "worker/hf_backend/own_logits_head.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace temper {
namespace {

constexpr int64_t kChunkRows = 256;

// Calls visit(first row, rows) for one chunk after the other.
template <typename Visit>
void ForEachChunk(int64_t rows, const Visit& visit) {
  for (int64_t row = 0; row < rows; row += kChunkRows) visit(row, std::min(kChunkRows, rows - row));
}

at::Tensor LogprobsOf(const at::Tensor& logits_SV, const at::Tensor& targets_S) {
  return logits_SV.log_softmax(-1).gather(1, targets_S.unsqueeze(1)).squeeze(1);
}

// What the rows pay for their whole distributions.
at::Tensor PenaltyOf(const at::Tensor& logits_SV, const ops::DistributionPenalty& penalty) {
  at::Tensor sum = at::zeros({}, logits_SV.options());
  if (penalty.uniform != 0) sum = sum - penalty.uniform * logits_SV.log_softmax(-1).mean(-1).sum();
  if (penalty.log_normalizer != 0) sum = sum + penalty.log_normalizer * logits_SV.logsumexp(-1).square().sum();
  return sum;
}

}  // namespace

at::Tensor OwnLogitsHead::TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& targets_S) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> chunks = {at::empty({0}, at::kFloat)};
  ForEachChunk(hidden_SD.size(0), [&](int64_t row, int64_t rows) {
    const at::Tensor logits_SV = logits_(hidden_SD.narrow(0, row, rows)).to(at::kFloat);
    chunks.push_back(LogprobsOf(logits_SV, targets_S.narrow(0, row, rows)));
  });
  return at::cat(chunks);
}

at::Tensor OwnLogitsHead::Logits(const at::Tensor& hidden_SD) const {
  const at::NoGradGuard no_grad;
  return logits_(hidden_SD).to(at::kFloat);
}

ops::LogprobGradients OwnLogitsHead::Backward(const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                              const at::Tensor& coefficient_S,
                                              const ops::DistributionPenalty& penalty) {
  TORCH_CHECK(penalty.teacher == nullptr, "a model that computes its logits itself has no teacher");
  ops::LogprobGradients out = {.logprobs_S = at::empty({hidden_SD.size(0)}, at::kFloat),
                               .grad_hidden_SD = at::empty_like(hidden_SD)};
  ForEachChunk(hidden_SD.size(0), [&](int64_t row, int64_t rows) {
    const at::AutoGradMode recorded(true);
    const at::Tensor input_SD = hidden_SD.narrow(0, row, rows).detach().requires_grad_(true);
    const at::Tensor logits_SV = logits_(input_SD).to(at::kFloat);
    const at::Tensor logprobs_S = LogprobsOf(logits_SV, targets_S.narrow(0, row, rows));
    const at::Tensor paid = PenaltyOf(logits_SV, penalty);
    const at::Tensor loss = (coefficient_S.narrow(0, row, rows) * logprobs_S).sum() + paid;
    const at::Tensor grad_SD = BackpropagateInto(leaves_, loss, {}, input_SD);
    const at::NoGradGuard no_grad;
    out.grad_hidden_SD.narrow(0, row, rows).copy_(grad_SD);
    out.logprobs_S.narrow(0, row, rows).copy_(logprobs_S);
    out.penalty += paid.item<double>();
  });
  return out;
}

}  // namespace temper
