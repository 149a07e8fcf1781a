// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "worker/train/distillation_options.h"
#include "worker/train/objective.h"

namespace temper {

// A mean over the scored tokens:
//   (1 − sft_weight) · divergence from the teacher (worker/ops/divergence_config.h)
//   + sft_weight · cross-entropy with the token itself, at temperature 1
// Without a teacher, the divergence is that from what samples bring of one (ops::StoredTeacher).
class DistillationObjective : public Objective {
 public:
  // The teacher outlives it; null: samples bring what one has said.
  DistillationObjective(const DistillationOptions& options, TrainableModel* teacher)
      : options_(options), teacher_(teacher) {}

  double Count(const MicroBatch& batch) const override { return CountScored(batch); }
  TrainableModel* teacher() const override { return teacher_; }

  ObjectiveResult Differentiate(LmHead& head, const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                const ScoredDocuments& documents, double normalizer) const override;
  StepShare Measure(const LmHead& head, const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                    const ScoredDocuments& documents, double normalizer) const override;

  // Means over the scored tokens: distillation/divergence, distillation/cross_entropy,
  // distillation/teacher_cross_entropy, of a teacher that is there, and distillation/agreement, the share of them
  // before which student and teacher find the same token most probable.
  size_t num_sums() const override;
  std::map<std::string, double> Figures(const std::vector<double>& sums) const override;

 private:
  std::unique_ptr<ops::Teacher> TeacherOf(const ScoredDocuments& documents, at::Device device) const;

  DistillationOptions options_;
  TrainableModel* teacher_;
};

}  // namespace temper
