// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/data/batch_stream.h"
#include "worker/model/model_config.h"
#include "worker/train/train_job.h"

namespace temper {

// Reads a job's data with the model's tokenizer and chat template, and tells the observer what was found: samples,
// tokens, what was truncated, dropped or refused.
//
// Errors as Tokenizer::Open, ChatTemplate::Open and BatchStream::Open have them, and INVALID_ARGUMENT when the
// tokenizer has ids that the model has no embedding for or max_sample_tokens is beyond the model's positions.
absl::StatusOr<std::unique_ptr<BatchStream>> OpenTrainingData(const TrainJob& job, const ModelConfig& model,
                                                              TrainObserver& observer, const std::atomic<bool>& stop);

}  // namespace temper
