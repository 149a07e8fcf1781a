// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "worker/model/lm_head.h"

namespace temper {

// A loss, as a function of the log-probabilities of given tokens. S: rows that the loss looks at.
//
// All losses are sums over the whole step divided by one number, the step's `normalizer`: micro-batches, packing and
// ranks then change nothing.
class Objective {
 public:
  struct Evaluation {
    double loss = 0;           // this micro-batch's share
    at::Tensor coefficient_S;  // ∂loss/∂logprob, fp32
  };

  virtual ~Objective() = default;

  virtual Evaluation Evaluate(const at::Tensor& logprobs_S, double normalizer) const = 0;

  // The coefficients, when they do not depend on the log-probabilities: the head then needs one pass, not two.
  virtual std::optional<at::Tensor> KnownCoefficients(int64_t rows, double normalizer) const { return std::nullopt; }

  // What is added for the distribution of each row.
  virtual ops::DistributionPenalty Penalty(double normalizer) const { return {}; }
};

// Cross-entropy: −Σ logprob / normalizer, the normalizer being the number of scored tokens. With label smoothing ε
// (Szegedy et al. 2016) the target's part is 1 − ε and the vocabulary's mean ε; z-loss adds z_loss · log²Z a token.
class SupervisedObjective : public Objective {
 public:
  explicit SupervisedObjective(double label_smoothing = 0, double z_loss = 0)
      : label_smoothing_(label_smoothing), z_loss_(z_loss) {}

  ops::DistributionPenalty Penalty(double normalizer) const override {
    return {label_smoothing_ / normalizer, z_loss_ / normalizer};
  }
  Evaluation Evaluate(const at::Tensor& logprobs_S, double normalizer) const override;
  std::optional<at::Tensor> KnownCoefficients(int64_t rows, double normalizer) const override;

 private:
  double label_smoothing_;
  double z_loss_;
};

struct ObjectiveResult {
  double loss = 0;
  at::Tensor grad_hidden_SD;
};

// Loss and gradients of one micro-batch; the head's own gradient is added to its buffer. One pass over the logits where
// the objective allows it, else two.
ObjectiveResult ApplyObjective(const Objective& objective, LmHead& head, const at::Tensor& hidden_SD,
                               const at::Tensor& targets_S, double normalizer);

}  // namespace temper
