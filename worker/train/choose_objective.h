// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "worker/train/objective.h"
#include "worker/train/train_job.h"

namespace temper {

// What the job optimises. `teacher`: of a job with one (DistillationOptions::teacher), which outlives the objective.
std::unique_ptr<Objective> ChooseObjective(const TrainJob& job, TrainableModel* teacher = nullptr);

// What its validations measure: of supervised fine-tuning the cross-entropy alone, whatever is trained on beside it.
std::unique_ptr<Objective> ChooseValidationObjective(const TrainJob& job, TrainableModel* teacher = nullptr);

}  // namespace temper
