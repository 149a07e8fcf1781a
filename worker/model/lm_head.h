// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/model/lora.h"
#include "worker/model/parameter.h"
#include "worker/ops/chunked_cross_entropy.h"

namespace temper {

// The projection to the vocabulary. It never shows logits to the trainer, only log-probabilities of given tokens and
// their gradients; an Objective (worker/train/objective.h) turns the one into the other. S: rows that a loss looks at.
class LmHead {
 public:
  // `weight` may be the embedding's (tied); its rows from vocab_size on are padding. `adapter`: null without.
  LmHead(Parameter* weight, int64_t vocab_size, const ops::LogitConfig& config, LoraAdapter* adapter)
      : weight_(weight), vocab_size_(vocab_size), config_(config), adapter_(adapter) {}

  virtual ~LmHead() = default;
  LmHead(const LmHead&) = delete;
  LmHead& operator=(const LmHead&) = delete;

  // fp32 [S]. For losses of two passes, and for evaluation: the adapter's input is whole.
  virtual at::Tensor TokenLogprobs(const at::Tensor& hidden_SD, const at::Tensor& targets_S) const;

  // The same, compared with what the teacher's head has for the rows.
  ops::ComparedLogprobs CompareLogprobs(const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                        const ops::Teacher& teacher) const;
  // For another head: what this one, without an adapter, has for the rows. Refers to the weight.
  ops::TeacherHead AsTeacher(const at::Tensor& hidden_SD, const ops::DivergenceConfig& divergence) const;

  // Log-probabilities and ∂loss/∂hidden, given ∂loss/∂logprob of each row. Adds the gradients of a trainable weight and
  // of the adapter, whose input is dropped here as LoraAdapter::dropout says.
  virtual ops::LogprobGradients Backward(const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                         const at::Tensor& coefficient_S, const ops::DistributionPenalty& penalty);

  // All logits, fp32 [S, vocab]: for comparing models, never for training.
  virtual at::Tensor Logits(const at::Tensor& hidden_SD) const;

  Parameter* weight() const { return weight_; }
  const LoraAdapter* adapter() const { return adapter_; }

 private:
  ops::LowRankTerm TermOf(const at::Tensor& in_SD) const;

  Parameter* weight_;
  int64_t vocab_size_;
  ops::LogitConfig config_;
  LoraAdapter* adapter_;
};

}  // namespace temper
