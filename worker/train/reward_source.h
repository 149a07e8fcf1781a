// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "worker/checkpoint/native_model.h"
#include "worker/train/train_job.h"

namespace temper {

// The model of a job with method.reward, taken for a reward model (worker/checkpoint/reward_model.h). The first numbers
// of a new score follow from the job's seed; its padding token is the tokenizer's, else the one that config.json has,
// else the tokenizer's eos token.
//
// Errors as HfRepository::Open, Tokenizer::Open and TakeForRewardModel have them; INVALID_ARGUMENT where there is no
// such token.
absl::StatusOr<NativeRepository> OpenRewardSource(const TrainJob& job);

}  // namespace temper
