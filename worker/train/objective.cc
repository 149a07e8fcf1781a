// SPDX-License-Identifier: Apache-2.0
#include "worker/train/objective.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace temper {

double SupervisedObjective::Count(const MicroBatch& batch) const {
  return static_cast<double>(std::count(batch.loss_mask_T.begin(), batch.loss_mask_T.end(), 1));
}

Objective::Evaluation SupervisedObjective::Evaluate(const at::Tensor& logprobs_S, const ScoredDocuments&,
                                                    double normalizer) const {
  const double mean = -logprobs_S.sum(at::kDouble).item<double>() / normalizer;
  return {(1 - label_smoothing_) * mean, *KnownCoefficients(logprobs_S.size(0), normalizer), {}};
}

std::optional<at::Tensor> SupervisedObjective::KnownCoefficients(int64_t rows, double normalizer) const {
  return at::full({rows}, -(1 - label_smoothing_) / normalizer, at::kFloat);
}

ObjectiveResult ApplyObjective(const Objective& objective, LmHead& head, const at::Tensor& hidden_SD,
                               const at::Tensor& targets_S, const ScoredDocuments& documents, double normalizer) {
  const ops::DistributionPenalty penalty = objective.Penalty(normalizer);
  const auto result = [&](Objective::Evaluation evaluation, const ops::LogprobGradients& out) {
    return ObjectiveResult{evaluation.loss + out.penalty, std::move(evaluation.sums), out.grad_hidden_SD};
  };
  if (const auto known_S = objective.KnownCoefficients(hidden_SD.size(0), normalizer)) {
    const ops::LogprobGradients out = head.Backward(hidden_SD, targets_S, known_S->to(hidden_SD.device()), penalty);
    return result(objective.Evaluate(out.logprobs_S, documents, normalizer), out);
  }
  Objective::Evaluation evaluation =
      objective.Evaluate(head.TokenLogprobs(hidden_SD, targets_S), documents, normalizer);
  const ops::LogprobGradients out = head.Backward(hidden_SD, targets_S, evaluation.coefficient_S, penalty);
  return result(std::move(evaluation), out);
}

}  // namespace temper
