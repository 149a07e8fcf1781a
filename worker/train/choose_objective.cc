// SPDX-License-Identifier: Apache-2.0
#include "worker/train/choose_objective.h"

#include "worker/train/distillation_objective.h"
#include "worker/train/preference_objective.h"
#include "worker/train/reference_pass.h"
#include "worker/train/reward_objective.h"

namespace temper {

std::unique_ptr<Objective> ChooseObjective(const TrainJob& job, TrainableModel* teacher) {
  if (job.preference) {
    return std::make_unique<PreferenceObjective>(
        *job.preference, NeedsReferencePass(job) ? Reference::kStored : Reference::kWithoutAdapters);
  }
  if (job.distillation) return std::make_unique<DistillationObjective>(*job.distillation, teacher);
  if (job.reward) return std::make_unique<RewardObjective>(*job.reward);
  return std::make_unique<SupervisedObjective>(job.training.label_smoothing, job.training.z_loss);
}

std::unique_ptr<Objective> ChooseValidationObjective(const TrainJob& job, TrainableModel* teacher) {
  if (job.pairs() || job.distillation) return ChooseObjective(job, teacher);
  return std::make_unique<SupervisedObjective>();
}

}  // namespace temper
