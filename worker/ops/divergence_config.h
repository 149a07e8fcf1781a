// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper::ops {

// How far a student's distribution q is from a teacher's p, both of logits divided by the temperature:
//   kForwardKl  KL(p ‖ q)                                               Hinton et al. 2015
//   kReverseKl  KL(q ‖ p)                                               Gu et al. 2024
//   kJsd        w KL(p ‖ m) + (1 − w) KL(q ‖ m), m = w p + (1 − w) q    Agarwal et al. 2024; w is TRL's `beta`
// None is multiplied by the temperature's square, as TRL's are not.
enum class DivergenceKind { kForwardKl, kReverseKl, kJsd };

struct DivergenceConfig {
  DivergenceKind kind = DivergenceKind::kForwardKl;
  double temperature = 1;
  double teacher_weight = 0.5;  // w, over 0 and below 1; of kJsd only
};

}  // namespace temper::ops
