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
};

// Cross-entropy: −Σ logprob / normalizer, the normalizer being the number of scored tokens.
class SupervisedObjective : public Objective {
 public:
  Evaluation Evaluate(const at::Tensor& logprobs_S, double normalizer) const override;
  std::optional<at::Tensor> KnownCoefficients(int64_t rows, double normalizer) const override;
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
