// SPDX-License-Identifier: Apache-2.0
#include "worker/train/objective.h"

#include <ATen/ATen.h>

namespace temper {

Objective::Evaluation SupervisedObjective::Evaluate(const at::Tensor& logprobs_S, double normalizer) const {
  const double mean = -logprobs_S.sum(at::kDouble).item<double>() / normalizer;
  return {(1 - label_smoothing_) * mean, *KnownCoefficients(logprobs_S.size(0), normalizer)};
}

std::optional<at::Tensor> SupervisedObjective::KnownCoefficients(int64_t rows, double normalizer) const {
  return at::full({rows}, -(1 - label_smoothing_) / normalizer, at::kFloat);
}

ObjectiveResult ApplyObjective(const Objective& objective, LmHead& head, const at::Tensor& hidden_SD,
                               const at::Tensor& targets_S, double normalizer) {
  const ops::DistributionPenalty penalty = objective.Penalty(normalizer);
  if (const auto known_S = objective.KnownCoefficients(hidden_SD.size(0), normalizer)) {
    const ops::LogprobGradients out = head.Backward(hidden_SD, targets_S, known_S->to(hidden_SD.device()), penalty);
    return {objective.Evaluate(out.logprobs_S, normalizer).loss + out.penalty, out.grad_hidden_SD};
  }
  const Objective::Evaluation evaluation = objective.Evaluate(head.TokenLogprobs(hidden_SD, targets_S), normalizer);
  const ops::LogprobGradients out = head.Backward(hidden_SD, targets_S, evaluation.coefficient_S, penalty);
  return {evaluation.loss + out.penalty, out.grad_hidden_SD};
}

}  // namespace temper
