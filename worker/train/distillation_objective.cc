// SPDX-License-Identifier: Apache-2.0
#include "worker/train/distillation_objective.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "worker/model/trainable_model.h"

namespace temper {
namespace {

// The sums that figures are made of.
enum Sum { kTokens, kDivergence, kCrossEntropy, kTeacherCrossEntropy, kAgreements, kSums };

StepShare ShareOf(const at::Tensor& logprobs_S, const ops::TeacherComparison& comparison, double sft_weight,
                  double normalizer) {
  StepShare share{.sums = std::vector<double>(kSums)};
  share.sums[kTokens] = static_cast<double>(logprobs_S.size(0));
  share.sums[kDivergence] = comparison.divergence;
  share.sums[kCrossEntropy] = -logprobs_S.sum(at::kDouble).item<double>();
  share.sums[kTeacherCrossEntropy] = -comparison.teacher_logprob;
  share.sums[kAgreements] = comparison.agreements;
  share.loss = ((1 - sft_weight) * share.sums[kDivergence] + sft_weight * share.sums[kCrossEntropy]) / normalizer;
  return share;
}

}  // namespace

std::unique_ptr<ops::Teacher> DistillationObjective::TeacherOf(const ScoredDocuments& documents,
                                                               at::Device device) const {
  if (teacher_ != nullptr) {
    return std::make_unique<ops::TeacherHead>(teacher_->head().AsTeacher(documents.teacher_SD, options_.divergence));
  }
  const TeacherTokens& stored = *documents.stored_teacher;
  const std::vector<int64_t> tokens(stored.tokens.begin(), stored.tokens.end());
  return std::make_unique<ops::StoredTeacher>(stored.starts, at::tensor(tokens, at::kLong).to(device),
                                              at::tensor(stored.logprobs, at::kFloat).to(device));
}

ObjectiveResult DistillationObjective::Differentiate(LmHead& head, const at::Tensor& hidden_SD,
                                                     const at::Tensor& targets_S, const ScoredDocuments& documents,
                                                     double normalizer) const {
  const std::unique_ptr<ops::Teacher> teacher = TeacherOf(documents, hidden_SD.device());
  const at::Tensor coefficient_S =
      at::full({hidden_SD.size(0)}, -options_.sft_weight / normalizer, hidden_SD.options().dtype(at::kFloat));
  const ops::LogprobGradients out =
      head.Backward(hidden_SD, targets_S, coefficient_S,
                    {.divergence = (1 - options_.sft_weight) / normalizer, .teacher = teacher.get()});
  return {ShareOf(out.logprobs_S, out.comparison, options_.sft_weight, normalizer), out.grad_hidden_SD};
}

StepShare DistillationObjective::Measure(const LmHead& head, const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                         const ScoredDocuments& documents, double normalizer) const {
  const ops::ComparedLogprobs out =
      head.CompareLogprobs(hidden_SD, targets_S, *TeacherOf(documents, hidden_SD.device()));
  return ShareOf(out.logprobs_S, out.comparison, options_.sft_weight, normalizer);
}

size_t DistillationObjective::num_sums() const { return kSums; }

std::map<std::string, double> DistillationObjective::Figures(const std::vector<double>& sums) const {
  const double tokens = std::max(1.0, sums[kTokens]);
  std::map<std::string, double> figures = {{"distillation/divergence", sums[kDivergence] / tokens},
                                           {"distillation/cross_entropy", sums[kCrossEntropy] / tokens},
                                           {"distillation/agreement", sums[kAgreements] / tokens}};
  if (teacher_ != nullptr) figures["distillation/teacher_cross_entropy"] = sums[kTeacherCrossEntropy] / tokens;
  return figures;
}

}  // namespace temper
