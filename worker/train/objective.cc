// SPDX-License-Identifier: Apache-2.0
#include "worker/train/objective.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace temper {

std::vector<double> NoMaxima(size_t count) {
  return std::vector<double>(count, -std::numeric_limits<double>::infinity());
}

void KeepMaximum(double other, double& maximum) {
  if (std::isnan(other) || other > maximum) maximum = other;
}

void KeepMaxima(const std::vector<double>& of_others, std::vector<double>& maxima) {
  if (maxima.empty()) maxima = NoMaxima(of_others.size());
  for (size_t i = 0; i < of_others.size(); ++i) KeepMaximum(of_others[i], maxima[i]);
}

double CountScored(const MicroBatch& batch) {
  return static_cast<double>(std::count(batch.loss_mask_T.begin(), batch.loss_mask_T.end(), 1));
}

StepShare& StepShare::operator+=(const StepShare& other) {
  loss += other.loss;
  sums.resize(std::max(sums.size(), other.sums.size()));
  for (size_t i = 0; i < other.sums.size(); ++i) sums[i] += other.sums[i];
  KeepMaxima(other.maxima, maxima);
  return *this;
}

ObjectiveResult LogprobObjective::Differentiate(LmHead& head, const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                                const ScoredDocuments& documents, double normalizer) const {
  const ops::DistributionPenalty penalty = Penalty(normalizer);
  const auto result = [](Evaluation evaluation, const ops::LogprobGradients& out) {
    return ObjectiveResult{{evaluation.loss + out.penalty, std::move(evaluation.sums), std::move(evaluation.maxima)},
                           out.grad_hidden_SD};
  };
  if (const auto known_S = KnownCoefficients(hidden_SD.size(0), normalizer)) {
    const ops::LogprobGradients out = head.Backward(hidden_SD, targets_S, known_S->to(hidden_SD.device()), penalty);
    return result(Evaluate(out.logprobs_S, documents, normalizer), out);
  }
  Evaluation evaluation = Evaluate(head.TokenLogprobs(hidden_SD, targets_S), documents, normalizer);
  const ops::LogprobGradients out = head.Backward(hidden_SD, targets_S, evaluation.coefficient_S, penalty);
  return result(std::move(evaluation), out);
}

StepShare LogprobObjective::Measure(const LmHead& head, const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                    const ScoredDocuments& documents, double normalizer) const {
  Evaluation evaluation = Evaluate(head.TokenLogprobs(hidden_SD, targets_S), documents, normalizer);
  return {evaluation.loss, std::move(evaluation.sums), std::move(evaluation.maxima)};
}

LogprobObjective::Evaluation SupervisedObjective::Evaluate(const at::Tensor& logprobs_S, const ScoredDocuments&,
                                                           double normalizer) const {
  const double mean = -logprobs_S.sum(at::kDouble).item<double>() / normalizer;
  return {(1 - label_smoothing_) * mean, *KnownCoefficients(logprobs_S.size(0), normalizer), {}};
}

std::optional<at::Tensor> SupervisedObjective::KnownCoefficients(int64_t rows, double normalizer) const {
  return at::full({rows}, -(1 - label_smoothing_) / normalizer, at::kFloat);
}

}  // namespace temper
