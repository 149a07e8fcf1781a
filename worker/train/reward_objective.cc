// SPDX-License-Identifier: Apache-2.0
#include "worker/train/reward_objective.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "worker/train/pair_math.h"

namespace temper {
namespace {

enum Sum { kPairs, kCorrect, kMargins, kRewards, kSums };
enum Maximum { kHighest, kLowestNegated, kMaxima };

}  // namespace

double RewardObjective::Count(const MicroBatch& batch) const { return CountPairs(batch); }

LogprobObjective::Evaluation RewardObjective::Evaluate(const at::Tensor& rewards_S, const ScoredDocuments& documents,
                                                       double normalizer) const {
  const std::vector<double> rewards = ToDoubles(rewards_S);
  TORCH_CHECK(static_cast<int64_t>(rewards.size()) == documents.size(), "a document has one reward");
  Evaluation evaluation{.sums = std::vector<double>(kSums), .maxima = NoMaxima(kMaxima)};
  std::vector<float> coefficients(rewards.size());
  for (size_t i = 0; i + 1 < rewards.size(); i += 2) {
    const double chosen = rewards[i], rejected = rewards[i + 1];
    const double margin = chosen - rejected, sum = chosen + rejected;
    evaluation.loss += (-LogSigmoid(margin) + options_.centering * sum * sum) / normalizer;
    const double by_margin = -Sigmoid(-margin), by_sum = 2 * options_.centering * sum;
    coefficients[i] = static_cast<float>((by_sum + by_margin) / normalizer);
    coefficients[i + 1] = static_cast<float>((by_sum - by_margin) / normalizer);
    evaluation.sums[kPairs] += 1;
    evaluation.sums[kCorrect] += chosen > rejected;
    evaluation.sums[kMargins] += margin;
    evaluation.sums[kRewards] += sum;
    for (const double reward : {chosen, rejected}) {
      KeepMaximum(reward, evaluation.maxima[kHighest]);
      KeepMaximum(-reward, evaluation.maxima[kLowestNegated]);
    }
  }
  evaluation.coefficient_S = at::tensor(coefficients, at::kFloat).to(rewards_S.device());
  return evaluation;
}

size_t RewardObjective::num_sums() const { return kSums; }

std::map<std::string, double> RewardObjective::Figures(const std::vector<double>& sums) const {
  const double pairs = std::max(1.0, sums[kPairs]);
  return {{"accuracy", sums[kCorrect] / pairs},
          {"margin", sums[kMargins] / pairs},
          {"mean_reward", sums[kRewards] / (2 * pairs)}};
}

size_t RewardObjective::num_maxima() const { return kMaxima; }

std::map<std::string, double> RewardObjective::Extremes(const std::vector<double>& maxima) const {
  return {{"max_reward", maxima[kHighest]}, {"min_reward", -maxima[kLowestNegated]}};
}

}  // namespace temper
