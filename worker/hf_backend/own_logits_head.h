// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "worker/hf_backend/leaf.h"
#include "worker/model/lm_head.h"

namespace temper {

// A head whose logits a transformers model computes itself, because it scales, caps or shifts them: [S, D] → [S, V],
// recorded by autograd. A chunk of rows at a time, so that S × V logits never exist; softmax and sums are fp32.
class OwnLogitsHead : public LmHead {
 public:
  using LogitFunction = std::function<at::Tensor(const at::Tensor& hidden_SD)>;

  // `leaves`: all that `logits` may read. Their parameters outlive the head.
  OwnLogitsHead(Parameter* weight, int64_t vocab_size, LogitFunction logits, std::vector<Leaf> leaves)
      : LmHead(weight, vocab_size, {}, nullptr), logits_(std::move(logits)), leaves_(std::move(leaves)) {}

  at::Tensor TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& targets_S) const override;
  ops::LogprobGradients Backward(const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                 const at::Tensor& coefficient_S, const ops::DistributionPenalty& penalty) override;
  at::Tensor Logits(const at::Tensor& hidden_SD) const override;

 private:
  LogitFunction logits_;
  std::vector<Leaf> leaves_;
};

}  // namespace temper
