// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "worker/ops/divergence_config.h"

namespace temper::ops {

// As the formulas are written, with whatever dtype the logits have. Sum over the rows.
inline at::Tensor DivergenceReference(const at::Tensor& student_CV, const at::Tensor& teacher_CV,
                                      const DivergenceConfig& config) {
  const at::Tensor q = (student_CV / config.temperature).softmax(1), p = (teacher_CV / config.temperature).softmax(1);
  const auto kl = [](const at::Tensor& a, const at::Tensor& b) { return (a * (a.log() - b.log())).sum(); };
  switch (config.kind) {
    case DivergenceKind::kForwardKl:
      return kl(p, q);
    case DivergenceKind::kReverseKl:
      return kl(q, p);
    case DivergenceKind::kJsd:
      break;
  }
  const at::Tensor m = config.teacher_weight * p + (1 - config.teacher_weight) * q;
  return config.teacher_weight * kl(p, m) + (1 - config.teacher_weight) * kl(q, m);
}

struct DivergenceCase {
  std::string name;
  DivergenceConfig config;
};

inline std::vector<DivergenceCase> DivergenceCases() {
  return {{"ForwardKl", {}},
          {"ForwardKlWarm", {.temperature = 2.5}},
          {"ReverseKl", {.kind = DivergenceKind::kReverseKl}},
          {"ReverseKlCool", {.kind = DivergenceKind::kReverseKl, .temperature = 0.7}},
          {"Jsd", {.kind = DivergenceKind::kJsd}},
          {"JsdOfTheTeacher", {.kind = DivergenceKind::kJsd, .temperature = 1.5, .teacher_weight = 0.9}}};
}

}  // namespace temper::ops
