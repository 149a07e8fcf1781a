// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/model/lm_head.h"
#include "worker/model/parameter.h"

namespace temper {

// One number a row, hidden · weight in fp32, in place of the vocabulary: the head of a reward model (HF's `score`). It
// stands where a trainer has an LM head: what an objective gets as the log-probability of a row is its score. Targets
// mean nothing, and there is no distribution to penalise.
class ScoreHead : public LmHead {
 public:
  // `weight`: [1, D].
  explicit ScoreHead(Parameter* weight) : LmHead(weight, /*vocab_size=*/1, {}, /*adapter=*/nullptr) {}

  at::Tensor TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& targets_S) const override;
  ops::LogprobGradients Backward(const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                 const at::Tensor& coefficient_S, const ops::DistributionPenalty& penalty) override;
  // The scores, fp32 [S, 1].
  at::Tensor Logits(const at::Tensor& hidden_SD) const override;
};

}  // namespace temper
