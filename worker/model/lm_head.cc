// SPDX-License-Identifier: Apache-2.0
#include "worker/model/lm_head.h"

#include <ATen/ATen.h>

#include "worker/model/gradient.h"
#include "worker/ops/linear.h"

namespace temper {

at::Tensor LmHead::TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& targets_S) const {
  return ops::TokenLogprobs(hidden_SD, weight_->weight, vocab_size_, targets_S);
}

ops::LogprobGradients LmHead::Backward(const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                       const at::Tensor& coefficient_S, const ops::DistributionPenalty& penalty) {
  const at::Tensor gradient = weight_->trainable ? GradientBuffer(*weight_) : at::Tensor();
  return ops::TokenLogprobsWithGradients(hidden_SD, weight_->weight, vocab_size_, targets_S, coefficient_S, gradient,
                                         penalty);
}

at::Tensor LmHead::Logits(const at::Tensor& hidden_SD) const {
  const at::NoGradGuard no_grad;
  return ops::Linear(hidden_SD, weight_->weight).narrow(1, 0, vocab_size_).to(at::kFloat);
}

}  // namespace temper
