// SPDX-License-Identifier: Apache-2.0
#include "worker/train/preference_objective.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "worker/train/pair_math.h"

namespace temper {
namespace {

// The sums that figures are made of.
enum Sum { kPairs, kChosenLogps, kRejectedLogps, kChosenRewards, kRejectedRewards, kCorrect, kTokens, kSquares, kSums };

}  // namespace

double PreferenceObjective::Count(const MicroBatch& batch) const { return CountPairs(batch); }

bool PreferenceObjective::normalized() const {
  const bool always = options_.loss != PreferenceLoss::kSigmoid && options_.loss != PreferenceLoss::kHinge;
  return always || options_.length_normalized;
}

PreferenceObjective::PairLoss PreferenceObjective::LossOf(const Answer& chosen, const Answer& rejected) const {
  const double beta = options_.beta, epsilon = options_.label_smoothing;
  const double chosen_size = normalized() ? chosen.tokens : 1, rejected_size = normalized() ? rejected.tokens : 1;
  const double preferred = (chosen.logprob - chosen.reference) / chosen_size;
  const double other = (rejected.logprob - rejected.reference) / rejected_size;
  const double delta = preferred - other;
  const auto of_delta = [&](double loss, double by_delta) {
    return PairLoss{loss, by_delta / chosen_size, -by_delta / rejected_size};
  };
  switch (options_.loss) {
    case PreferenceLoss::kSigmoid:
    case PreferenceLoss::kSimPo: {
      const double logit = beta * delta - options_.margin;
      return of_delta(-(1 - epsilon) * LogSigmoid(logit) - epsilon * LogSigmoid(-logit),
                      -beta * ((1 - epsilon) * Sigmoid(-logit) - epsilon * Sigmoid(logit)));
    }
    case PreferenceLoss::kIpo: {
      const double error = delta - 1 / (2 * beta);
      return of_delta(error * error, 2 * error);
    }
    case PreferenceLoss::kHinge: {
      const double left = 1 - beta * delta;
      return of_delta(std::max(0.0, left), left > 0 ? -beta : 0);
    }
    case PreferenceLoss::kOrpo:
      break;
  }
  // 1 − p, which is 0 to fp32 for an answer that is certain.
  const auto improbability = [](double logprob) { return std::max(-std::expm1(logprob), 1e-7); };
  const double not_preferred = improbability(preferred), not_other = improbability(other);
  const double log_odds_ratio = delta - (std::log(not_preferred) - std::log(not_other));
  const double by_ratio = -beta * Sigmoid(-log_odds_ratio);
  return {-preferred - beta * LogSigmoid(log_odds_ratio), (-1 + by_ratio / not_preferred) / chosen_size,
          -by_ratio / not_other / rejected_size};
}

void PreferenceObjective::AddFigures(const Answer& chosen, const Answer& rejected, std::vector<double>& sums) const {
  const auto size = [&](const Answer& answer) { return has_reference() ? 1 : answer.tokens; };
  const auto reward = [&](const Answer& answer) {
    return options_.beta * (answer.logprob - answer.reference) / size(answer);
  };
  sums[kPairs] += 1;
  sums[kChosenLogps] += chosen.logprob / size(chosen);
  sums[kRejectedLogps] += rejected.logprob / size(rejected);
  sums[kChosenRewards] += reward(chosen);
  sums[kRejectedRewards] += reward(rejected);
  sums[kCorrect] += reward(chosen) > reward(rejected);
}

LogprobObjective::Evaluation PreferenceObjective::Evaluate(const at::Tensor& logprobs_S,
                                                           const ScoredDocuments& documents, double normalizer) const {
  const std::vector<double> logprobs = ToDoubles(logprobs_S);
  std::vector<double> reference;
  if (has_reference()) reference = ToDoubles(documents.reference_S);
  Evaluation evaluation{.sums = std::vector<double>(kSums)};
  std::vector<float> coefficients(logprobs.size());
  const auto answer = [&](int64_t document) {
    Answer sum;
    for (int64_t row = documents.starts[document]; row < documents.starts[document + 1]; ++row) {
      sum.logprob += logprobs[row];
      sum.tokens += 1;
      if (reference.empty()) continue;
      sum.reference += reference[row];
      evaluation.sums[kSquares] += (logprobs[row] - reference[row]) * (logprobs[row] - reference[row]) / 2;
    }
    evaluation.sums[kTokens] += sum.tokens;
    return sum;
  };
  const auto set_coefficients = [&](int64_t document, double value) {
    const auto begin = coefficients.begin();
    std::fill(begin + documents.starts[document], begin + documents.starts[document + 1],
              static_cast<float>(value / normalizer));
  };
  for (int64_t first = 0; first + 1 < documents.size(); first += 2) {
    const Answer chosen = answer(first), rejected = answer(first + 1);
    const PairLoss pair = LossOf(chosen, rejected);
    evaluation.loss += pair.loss / normalizer;
    set_coefficients(first, pair.by_chosen);
    set_coefficients(first + 1, pair.by_rejected);
    AddFigures(chosen, rejected, evaluation.sums);
  }
  evaluation.coefficient_S = at::tensor(coefficients, at::kFloat).to(logprobs_S.device());
  return evaluation;
}

size_t PreferenceObjective::num_sums() const { return kSums; }

std::map<std::string, double> PreferenceObjective::Figures(const std::vector<double>& sums) const {
  const double pairs = std::max(1.0, sums[kPairs]);
  std::map<std::string, double> figures = {
      {"logps/chosen", sums[kChosenLogps] / pairs},
      {"logps/rejected", sums[kRejectedLogps] / pairs},
      {"rewards/chosen", sums[kChosenRewards] / pairs},
      {"rewards/rejected", sums[kRejectedRewards] / pairs},
      {"rewards/margins", (sums[kChosenRewards] - sums[kRejectedRewards]) / pairs},
      {"rewards/accuracies", sums[kCorrect] / pairs},
  };
  if (has_reference()) figures["kl"] = sums[kSquares] / std::max(1.0, sums[kTokens]);
  return figures;
}

}  // namespace temper
