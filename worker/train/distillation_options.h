// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "worker/ops/divergence_config.h"

namespace temper {

// worker/train/distillation_objective.h has the formula.
struct DistillationOptions {
  std::string teacher;  // URI of a model; empty: samples bring what one has said
  ops::DivergenceConfig divergence;
  double sft_weight = 0;
};

}  // namespace temper
