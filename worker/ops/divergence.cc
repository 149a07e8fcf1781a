// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/divergence.h"

#include <ATen/ATen.h>

#include <cmath>

// Legend: C rows of a chunk, V vocabulary; q the student's probabilities, p the teacher's. In place where it can be: a
// chunk is large.

namespace temper::ops {
namespace {

// ∂/∂logits, where ∂/∂q is `by_q` but for what is the same for a whole row. `mean`: Σ q · by_q.
at::Tensor ThroughSoftmax(at::Tensor by_q_CV, const at::Tensor& q_CV, const at::Tensor& mean_C) {
  return by_q_CV.sub_(mean_C.unsqueeze(1)).mul_(q_CV);
}

}  // namespace

at::Tensor Divergence(const at::Tensor& student_CV, at::Tensor teacher_CV, const DivergenceConfig& config,
                      at::Tensor* grad_CV) {
  const at::NoGradGuard no_grad;
  at::Tensor log_q_CV = (student_CV / config.temperature).log_softmax(1);
  at::Tensor log_p_CV = teacher_CV.div_(config.temperature);
  log_p_CV.sub_(log_p_CV.logsumexp(1, /*keepdim=*/true));
  at::Tensor divergence_C, by_logits_CV;
  switch (config.kind) {
    case DivergenceKind::kForwardKl: {
      const at::Tensor p_CV = log_p_CV.exp();
      divergence_C = log_p_CV.sub_(log_q_CV).mul_(p_CV).sum(1);
      by_logits_CV = log_q_CV.exp_().sub_(p_CV);
      break;
    }
    case DivergenceKind::kReverseKl: {
      const at::Tensor q_CV = log_q_CV.exp();
      const at::Tensor ratio_CV = log_q_CV.sub_(log_p_CV);
      divergence_C = (q_CV * ratio_CV).sum(1);
      by_logits_CV = ThroughSoftmax(ratio_CV, q_CV, divergence_C);
      break;
    }
    case DivergenceKind::kJsd: {
      const double of_teacher = config.teacher_weight, of_student = 1 - of_teacher;
      const at::Tensor log_m_CV = at::logaddexp(log_p_CV + std::log(of_teacher), log_q_CV + std::log(of_student));
      const at::Tensor p_CV = log_p_CV.exp();
      divergence_C = log_p_CV.sub_(log_m_CV).mul_(p_CV).sum(1).mul_(of_teacher);
      const at::Tensor q_CV = log_q_CV.exp();
      const at::Tensor ratio_CV = log_q_CV.sub_(log_m_CV);
      const at::Tensor of_student_C = (q_CV * ratio_CV).sum(1);
      divergence_C.add_(of_student_C, of_student);
      // What m owes to q adds nothing: p and q are m when they are weighted.
      by_logits_CV = ThroughSoftmax(ratio_CV, q_CV, of_student_C).mul_(of_student);
      break;
    }
  }
  if (grad_CV != nullptr) *grad_CV = by_logits_CV.div_(config.temperature);
  return divergence_C;
}

}  // namespace temper::ops
