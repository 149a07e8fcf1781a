// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/data/micro_batch.h"
#include "worker/model/lm_head.h"

namespace temper {

// S: rows of a micro-batch that the loss looks at, document after document.
struct ScoredDocuments {
  // Document d has rows [starts[d], starts[d + 1]); documents + 1 entries.
  std::vector<int64_t> starts;
  // Log-probabilities under the objective's reference, fp32 [S]; undefined without.
  at::Tensor reference_S;

  int64_t size() const { return static_cast<int64_t>(starts.size()) - 1; }
};

// What a loss compares the model with.
enum class Reference {
  kNone,
  kWithoutAdapters,  // the model as it is when its adapters are left away
  kStored,           // what the micro-batch says (MicroBatch::reference_S)
};

// A loss, as a function of the log-probabilities of given tokens.
//
// All losses are sums over the whole step divided by one number, the step's `normalizer`: micro-batches, packing and
// ranks then change nothing. It is the sum of Count() over the step.
class Objective {
 public:
  struct Evaluation {
    double loss = 0;           // this micro-batch's share
    at::Tensor coefficient_S;  // ∂loss/∂logprob, fp32
    std::vector<double> sums;  // num_sums() of them, which add up over micro-batches and ranks: see Figures
  };

  virtual ~Objective() = default;

  // How much the micro-batch has of what the loss is a mean over.
  virtual double Count(const MicroBatch& batch) const = 0;

  virtual Reference reference() const { return Reference::kNone; }

  virtual Evaluation Evaluate(const at::Tensor& logprobs_S, const ScoredDocuments& documents,
                              double normalizer) const = 0;

  // The coefficients, when they do not depend on the log-probabilities: the head then needs one pass, not two.
  virtual std::optional<at::Tensor> KnownCoefficients(int64_t rows, double normalizer) const { return std::nullopt; }

  // What is added for the distribution of each row.
  virtual ops::DistributionPenalty Penalty(double normalizer) const { return {}; }

  virtual size_t num_sums() const { return 0; }
  // What is measured beside the loss, by name, from the sums of a whole step or validation.
  virtual std::map<std::string, double> Figures(const std::vector<double>& sums) const { return {}; }
};

// Cross-entropy: −Σ logprob / normalizer, a mean over the scored tokens. With label smoothing ε (Szegedy et al. 2016)
// the target's part is 1 − ε and the vocabulary's mean ε; z-loss adds z_loss · log²Z a token.
class SupervisedObjective : public Objective {
 public:
  explicit SupervisedObjective(double label_smoothing = 0, double z_loss = 0)
      : label_smoothing_(label_smoothing), z_loss_(z_loss) {}

  double Count(const MicroBatch& batch) const override;
  ops::DistributionPenalty Penalty(double normalizer) const override {
    return {label_smoothing_ / normalizer, z_loss_ / normalizer};
  }
  Evaluation Evaluate(const at::Tensor& logprobs_S, const ScoredDocuments& documents, double normalizer) const override;
  std::optional<at::Tensor> KnownCoefficients(int64_t rows, double normalizer) const override;

 private:
  double label_smoothing_;
  double z_loss_;
};

struct ObjectiveResult {
  double loss = 0;
  std::vector<double> sums;
  at::Tensor grad_hidden_SD;
};

// Loss and gradients of one micro-batch; the head's own gradient is added to its buffer. One pass over the logits where
// the objective allows it, else two.
ObjectiveResult ApplyObjective(const Objective& objective, LmHead& head, const at::Tensor& hidden_SD,
                               const at::Tensor& targets_S, const ScoredDocuments& documents, double normalizer);

}  // namespace temper
