// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "worker/train/objective.h"
#include "worker/train/preference_options.h"

namespace temper {

// Losses of pairs of answers, a mean over the pairs. Documents 2p and 2p + 1 of a micro-batch are the chosen and the
// rejected answer of pair p. With π and π_ref the probabilities of an answer's scored tokens, n their number, and
//   score = log π − log π_ref, divided by n where it is normalised;  Δ = score(chosen) − score(rejected)
//   kSigmoid  −(1−ε) log σ(βΔ) − ε log σ(−βΔ)   DPO (Rafailov et al. 2023); ε: Mitchell 2023
//   kIpo      (Δ − 1/2β)², normalised           Azar et al. 2024, as TRL has it
//   kHinge    max(0, 1 − βΔ)                    Zhao et al. 2023
//   kSimPo    as kSigmoid of βΔ − margin, normalised, without π_ref      Meng et al. 2024
//   kOrpo     −score(chosen) − β log σ(logodds(chosen) − logodds(rejected)), normalised, without π_ref; the odds are
//             p / (1 − p) of p = exp(score)     Hong et al. 2024
class PreferenceObjective : public LogprobObjective {
 public:
  // `reference`: where the losses with one get it.
  explicit PreferenceObjective(const PreferenceOptions& options, Reference reference = Reference::kWithoutAdapters)
      : options_(options), reference_(NeedsReference(options.loss) ? reference : Reference::kNone) {}

  double Count(const MicroBatch& batch) const override;  // pairs
  Reference reference() const override { return reference_; }
  Evaluation Evaluate(const at::Tensor& logprobs_S, const ScoredDocuments& documents, double normalizer) const override;

  // Means over the pairs, as TRL names them: logps/chosen, logps/rejected, rewards/chosen, rewards/rejected,
  // rewards/margins and rewards/accuracies. Rewards are β (log π − log π_ref), not normalised; without a reference, β
  // log π / n, and logps then are log π / n as well. With a reference also kl, a mean over the scored tokens: ½ (log π
  // − log π_ref)², an estimate that is right for small changes and for answers that the model itself would give.
  size_t num_sums() const override;
  std::map<std::string, double> Figures(const std::vector<double>& sums) const override;

 private:
  struct Answer {
    double logprob = 0;    // sum over its scored tokens
    double reference = 0;  // the same under the reference; 0 without
    double tokens = 0;
  };
  // Of one pair; derivatives by the sums of log-probabilities.
  struct PairLoss {
    double loss = 0;
    double by_chosen = 0;
    double by_rejected = 0;
  };
  bool has_reference() const { return reference_ != Reference::kNone; }
  bool normalized() const;
  PairLoss LossOf(const Answer& chosen, const Answer& rejected) const;
  void AddFigures(const Answer& chosen, const Answer& rejected, std::vector<double>& sums) const;

  PreferenceOptions options_;
  Reference reference_;
};

}  // namespace temper
