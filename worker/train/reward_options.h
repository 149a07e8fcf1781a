// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper {

// worker/train/reward_objective.h has the formula.
struct RewardOptions {
  double centering = 0;
};

}  // namespace temper
