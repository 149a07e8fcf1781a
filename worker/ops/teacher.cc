// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/teacher.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "worker/ops/chunked_cross_entropy.h"
#include "worker/ops/divergence.h"

namespace temper::ops {

TeacherHead::TeacherHead(at::Tensor hidden_SD, at::Tensor weight_VD, int64_t vocab_size, const LogitConfig& logits,
                         const DivergenceConfig& divergence)
    : hidden_SD_(std::move(hidden_SD)),
      weight_VD_(std::move(weight_VD)),
      vocab_size_(vocab_size),
      logits_(logits),
      divergence_(divergence) {}

void TeacherHead::Compare(const at::Tensor& logits_CV, const at::Tensor& targets_C1, int64_t begin,
                          TeacherComparison& comparison, at::Tensor* grad_CV) const {
  const at::Tensor hidden_CD = hidden_SD_.narrow(0, begin, logits_CV.size(0));
  const int64_t common = std::min(logits_CV.size(1), vocab_size_);
  const at::Tensor student_CV = logits_CV.narrow(1, 0, common);
  const at::Tensor teacher_CV = Logits(hidden_CD, weight_VD_, vocab_size_, logits_).narrow(1, 0, common);
  const at::Tensor logprobs_C1 = teacher_CV.gather(1, targets_C1) - teacher_CV.logsumexp(1, /*keepdim=*/true);
  comparison.teacher_logprob += logprobs_C1.sum(at::kDouble).item<double>();
  comparison.agreements += (student_CV.argmax(1) == teacher_CV.argmax(1)).sum().item<double>();
  comparison.divergence += Divergence(student_CV, teacher_CV, divergence_, grad_CV).sum(at::kDouble).item<double>();
}

StoredTeacher::StoredTeacher(std::vector<int64_t> starts, at::Tensor tokens_E, at::Tensor logprobs_E)
    : starts_(std::move(starts)), tokens_E_(std::move(tokens_E)), logprobs_E_(std::move(logprobs_E)) {
  const at::Tensor starts_S = at::tensor(starts_, at::kLong).to(tokens_E_.device());
  entries_S_ = starts_S.diff();
  rows_E_ = at::repeat_interleave(entries_S_);
}

void StoredTeacher::Compare(const at::Tensor& logits_CV, const at::Tensor&, int64_t begin,
                            TeacherComparison& comparison, at::Tensor* grad_CV) const {
  const int64_t rows = logits_CV.size(0), first = starts_[begin], entries = starts_[begin + rows] - first;
  const at::Tensor entries_C = entries_S_.narrow(0, begin, rows);
  const auto of_rows = [&](const at::Tensor& values_E, std::string_view reduce) {
    return at::segment_reduce(values_E, reduce, entries_C, {}, {}, /*axis=*/0, /*unsafe=*/true);
  };
  const at::Tensor rows_E = rows_E_.narrow(0, first, entries) - begin, tokens_E = tokens_E_.narrow(0, first, entries);
  const c10::List<std::optional<at::Tensor>> entries_CV({rows_E, tokens_E});
  const at::Tensor log_p_E = logprobs_E_.narrow(0, first, entries), p_E = log_p_E.exp();
  const at::Tensor lse_C = logits_CV.logsumexp(1);
  const at::Tensor log_q_E = logits_CV.index(entries_CV) - lse_C.index_select(0, rows_E);
  // The class of all others. Not 1 less the sum, of which little may be left.
  const at::Tensor none = at::scalar_tensor(-std::numeric_limits<float>::infinity(), logits_CV.options());
  at::Tensor others_CV = logits_CV.index_put(entries_CV, none);
  const at::Tensor others_lse_C = others_CV.logsumexp(1);
  const at::Tensor sum_p_C = of_rows(p_E, "sum"), others_p_C = (1 - sum_p_C).clamp_min(0);
  const at::Tensor divergence_C = of_rows(p_E * (log_p_E - log_q_E), "sum") + at::xlogy(others_p_C, others_p_C) -
                                  others_p_C * (others_lse_C - lse_C);
  comparison.divergence += divergence_C.sum(at::kDouble).item<double>();
  const at::Tensor first_to_student_E = logits_CV.argmax(1).index_select(0, rows_E) == tokens_E;
  const at::Tensor first_to_teacher_E = log_p_E == of_rows(log_p_E, "max").index_select(0, rows_E);
  comparison.agreements += first_to_student_E.logical_and(first_to_teacher_E).sum().item<double>();
  if (grad_CV == nullptr) return;
  // A class' probability is shared among its tokens as the student shares it.
  at::Tensor by_logits_CV = (logits_CV - lse_C.unsqueeze(1)).exp_().mul_((sum_p_C + others_p_C).unsqueeze(1));
  by_logits_CV.sub_(others_CV.sub_(others_lse_C.unsqueeze(1)).exp_().mul_(others_p_C.unsqueeze(1)));
  *grad_CV = by_logits_CV.index_put_(entries_CV, p_E.neg(), /*accumulate=*/true);
}

}  // namespace temper::ops
