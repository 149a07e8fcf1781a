// SPDX-License-Identifier: Apache-2.0
#include "worker/train/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace temper {

int64_t WarmupSteps(const TrainingOptions& options, int64_t total_steps) {
  return options.warmup_steps.value_or(total_steps * 3 / 100);
}

double LearningRate(const TrainingOptions& options, int64_t step, int64_t total_steps) {
  const int64_t warmup = WarmupSteps(options, total_steps);
  if (step <= warmup) return options.learning_rate * static_cast<double>(step) / static_cast<double>(warmup);
  // As in transformers: 0 at the first step after warm-up, and 1 one step after the last, so that no step is idle.
  const double progress =
      static_cast<double>(step - 1 - warmup) / static_cast<double>(std::max<int64_t>(1, total_steps - warmup));
  const double floor = options.final_learning_rate_ratio;
  switch (options.schedule) {
    case LearningRateSchedule::kConstant:
      return options.learning_rate;
    case LearningRateSchedule::kLinear:
      return options.learning_rate * (floor + (1 - floor) * (1 - progress));
    case LearningRateSchedule::kWarmupStableDecay: {
      const double decay = options.decay_ratio * static_cast<double>(total_steps);
      const double left = std::min(1.0, static_cast<double>(total_steps - step + 1) / decay);
      return options.learning_rate * (floor + (1 - floor) * left);
    }
    case LearningRateSchedule::kCosine:
      return options.learning_rate * (floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * progress)));
  }
  return options.learning_rate;
}

}  // namespace temper
