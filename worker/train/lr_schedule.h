// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "worker/train/train_job.h"

namespace temper {

// Steps of warm-up: as asked, or 3 % of the run, rounded down.
int64_t WarmupSteps(const TrainingOptions& options, int64_t total_steps);

// The learning rate of a step (from 1). Warm-up rises linearly and reaches the peak at its last step; the schedule then
// starts at the peak and would reach final_learning_rate_ratio × peak one step after the last.
double LearningRate(const TrainingOptions& options, int64_t step, int64_t total_steps);

}  // namespace temper
