// SPDX-License-Identifier: Apache-2.0
#include "worker/model/lm_head.h"

#include "worker/model/gradient.h"

namespace temper {

at::Tensor LmHead::TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& targets_S) const {
  return ops::TokenLogprobs(hidden_SD, weight_->weight, vocab_size_, targets_S, config_);
}

ops::LogprobGradients LmHead::Backward(const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                       const at::Tensor& coefficient_S, const ops::DistributionPenalty& penalty) {
  const at::Tensor gradient = weight_->trainable ? GradientBuffer(*weight_) : at::Tensor();
  return ops::TokenLogprobsWithGradients(hidden_SD, weight_->weight, vocab_size_, targets_S, coefficient_S, gradient,
                                         penalty, config_);
}

at::Tensor LmHead::Logits(const at::Tensor& hidden_SD) const {
  return ops::Logits(hidden_SD, weight_->weight, vocab_size_, config_);
}

}  // namespace temper
