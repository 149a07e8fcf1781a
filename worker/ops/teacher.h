// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/ops/divergence_config.h"
#include "worker/ops/logit_config.h"

namespace temper::ops {

// Sums over rows.
struct TeacherComparison {
  double divergence = 0;
  double teacher_logprob = 0;  // of the targets, at temperature 1; 0 where the teacher does not say
  double agreements = 0;       // rows of which both find the same token most probable
};

// Distributions for scored rows, which those of a head are compared with, a chunk of rows at a time.
//
// Legend: S scored rows, C rows of one chunk, V the head's vocabulary, without padding.
class Teacher {
 public:
  virtual ~Teacher() = default;

  // Rows [begin, begin + C), of which the head gives these logits, fp32 [C, V]. Adds to `comparison`; unless null,
  // *grad_CV becomes ∂(sum of the divergences)/∂logits: fp32, of the first columns where the others have none.
  virtual void Compare(const at::Tensor& logits_CV, const at::Tensor& targets_C1, int64_t begin,
                       TeacherComparison& comparison, at::Tensor* grad_CV) const = 0;
};

// Another model's head. Compared are distributions over the tokens that both vocabularies have; targets are among them.
class TeacherHead : public Teacher {
 public:
  // hidden_SD, weight_VD: as those of TokenLogprobs, of a width and dtype of their own.
  TeacherHead(at::Tensor hidden_SD, at::Tensor weight_VD, int64_t vocab_size, const LogitConfig& logits,
              const DivergenceConfig& divergence);

  void Compare(const at::Tensor& logits_CV, const at::Tensor& targets_C1, int64_t begin, TeacherComparison& comparison,
               at::Tensor* grad_CV) const override;

 private:
  at::Tensor hidden_SD_, weight_VD_;
  int64_t vocab_size_;
  LogitConfig logits_;
  DivergenceConfig divergence_;
};

// The most probable tokens, as they were stored: KL(p ‖ q) of two distributions over these and one class of all other
// tokens, as TRL's tail bucket. At most the KL over all tokens, and equal to it if they are spread alike in the rest.
class StoredTeacher : public Teacher {
 public:
  // Row r has entries [starts[r], starts[r + 1]), at least one and fewer than the vocabulary. tokens_E: int64, each
  // once in a row; logprobs_E: fp32, both on the head's device.
  StoredTeacher(std::vector<int64_t> starts, at::Tensor tokens_E, at::Tensor logprobs_E);

  void Compare(const at::Tensor& logits_CV, const at::Tensor& targets_C1, int64_t begin, TeacherComparison& comparison,
               at::Tensor* grad_CV) const override;

 private:
  std::vector<int64_t> starts_;
  at::Tensor entries_S_;  // int64: how many each row has
  at::Tensor rows_E_;     // int64: whose each is
  at::Tensor tokens_E_, logprobs_E_;
};

}  // namespace temper::ops
