// SPDX-License-Identifier: Apache-2.0
#include "worker/model/lm_head.h"

#include <ATen/ATen.h>

#include "worker/model/gradient.h"
#include "worker/ops/linear.h"

namespace temper {

ops::LowRankTerm LmHead::TermOf(const at::Tensor& in_SD) const {
  if (adapter_ == nullptr || !adapter_->enabled) return {};
  const at::NoGradGuard no_grad;
  return {ops::Linear(in_SD, adapter_->a_RI.weight).mul_(adapter_->scale), adapter_->b_OR.weight};
}

at::Tensor LmHead::TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& targets_S) const {
  return ops::TokenLogprobs(hidden_SD, weight_->weight, vocab_size_, targets_S, config_, TermOf(hidden_SD));
}

ops::ComparedLogprobs LmHead::CompareLogprobs(const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                              const ops::Teacher& teacher) const {
  return ops::CompareLogprobs(hidden_SD, weight_->weight, vocab_size_, targets_S, teacher, config_, TermOf(hidden_SD));
}

ops::TeacherHead LmHead::AsTeacher(const at::Tensor& hidden_SD, const ops::DivergenceConfig& divergence) const {
  return {hidden_SD, weight_->weight, vocab_size_, config_, divergence};
}

ops::LogprobGradients LmHead::Backward(const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                       const at::Tensor& coefficient_S, const ops::DistributionPenalty& penalty) {
  const at::Tensor gradient = weight_->trainable ? GradientBuffer(*weight_) : at::Tensor();
  const bool drops = adapter_ != nullptr && adapter_->dropout > 0;
  // What was kept is scaled up, so this is what a gradient is multiplied by as well.
  const at::Tensor kept_SD =
      drops ? at::dropout(at::ones_like(hidden_SD), adapter_->dropout, /*train=*/true) : at::Tensor();
  const at::Tensor in_SD = drops ? hidden_SD * kept_SD : hidden_SD;
  ops::LogprobGradients out = ops::TokenLogprobsWithGradients(hidden_SD, weight_->weight, vocab_size_, targets_S,
                                                              coefficient_S, gradient, penalty, config_, TermOf(in_SD));
  if (adapter_ == nullptr) return out;
  const at::NoGradGuard no_grad;
  const at::Tensor grad_SR = out.grad_inner_SR.mul_(adapter_->scale);
  AccumulateGradient(adapter_->a_RI, at::mm(grad_SR.t(), in_SD));
  AccumulateGradient(adapter_->b_OR, out.grad_outer_VR);
  const at::Tensor grad_in_SD = at::mm(grad_SR, adapter_->a_RI.weight);
  out.grad_hidden_SD.add_(drops ? grad_in_SD.mul_(kept_SD) : grad_in_SD);
  return out;
}

at::Tensor LmHead::Logits(const at::Tensor& hidden_SD) const {
  return ops::Logits(hidden_SD, weight_->weight, vocab_size_, config_, TermOf(hidden_SD));
}

}  // namespace temper
