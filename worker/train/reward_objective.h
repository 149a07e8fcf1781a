// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "worker/train/objective.h"
#include "worker/train/reward_options.h"

namespace temper {

// The loss of a reward model, a mean over pairs of answers (Bradley & Terry 1952, as TRL's RewardTrainer has it). Of
// pair p, documents 2p and 2p + 1 of a micro-batch have one scored row each: the rewards of the chosen and the rejected
// answer.
//   −log σ(chosen − rejected) + centering · (chosen + rejected)²
class RewardObjective : public LogprobObjective {
 public:
  explicit RewardObjective(const RewardOptions& options) : options_(options) {}

  double Count(const MicroBatch& batch) const override;  // pairs
  Evaluation Evaluate(const at::Tensor& rewards_S, const ScoredDocuments& documents, double normalizer) const override;

  // As TRL names them: accuracy, margin and mean_reward, means over the pairs and their answers.
  size_t num_sums() const override;
  std::map<std::string, double> Figures(const std::vector<double>& sums) const override;
  // min_reward and max_reward.
  size_t num_maxima() const override;
  std::map<std::string, double> Extremes(const std::vector<double>& maxima) const override;

 private:
  RewardOptions options_;
};

}  // namespace temper
