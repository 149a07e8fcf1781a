// SPDX-License-Identifier: Apache-2.0
#include "worker/model/score_head.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include "worker/model/gradient.h"

namespace temper {

at::Tensor ScoreHead::TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor&) const {
  return Logits(hidden_SD).squeeze(1);
}

ops::LogprobGradients ScoreHead::Backward(const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                          const at::Tensor& coefficient_S, const ops::DistributionPenalty& penalty) {
  TORCH_CHECK(!penalty.any(), "a score has no distribution to penalise");
  const at::NoGradGuard no_grad;
  const at::Tensor by_score_S1 = coefficient_S.unsqueeze(1);
  if (weight()->trainable) GradientBuffer(*weight()).addmm_(by_score_S1.t(), hidden_SD.to(at::kFloat));
  return {.logprobs_S = TokenLogprobs(hidden_SD, targets_S),
          .grad_hidden_SD = (by_score_S1 * weight()->weight.to(at::kFloat)).to(hidden_SD.scalar_type())};
}

at::Tensor ScoreHead::Logits(const at::Tensor& hidden_SD) const {
  const at::NoGradGuard no_grad;
  return at::mm(hidden_SD.to(at::kFloat), weight()->weight.to(at::kFloat).t());
}

}  // namespace temper
