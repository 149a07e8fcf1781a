// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/data/batch_stream.h"
#include "worker/data/sample_builder.h"
#include "worker/data/validation_set.h"
#include "worker/model/model_config.h"
#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"
#include "worker/train/train_job.h"

namespace temper {

// Of the scored tokens of all samples in the order of the data, and of the validation's rows.
struct ReferenceLogprobs {
  std::vector<float> training, validation;
};

// A job's data, tokenised with the model's tokenizer and chat template: batches to train on, and held-out samples. One
// thread.
class TrainingData {
 public:
  // Reads what must be read before the first step, and tells the observer what was found (OnData, OnLog). `stop` must
  // outlive it.
  //
  // Errors as Tokenizer::Open, ChatTemplate::Open and BatchStream::Open have them, and INVALID_ARGUMENT when the
  // tokenizer has ids that the model has no embedding for or max_sample_tokens is beyond the model's positions.
  static absl::StatusOr<std::unique_ptr<TrainingData>> Open(const TrainJob& job, const ModelConfig& model,
                                                            TrainObserver& observer, const std::atomic<bool>& stop);
  TrainingData(const TrainingData&) = delete;
  TrainingData& operator=(const TrainingData&) = delete;

  BatchStream& batches() { return *batches_; }
  // What rows have as MicroBatch::reference_S from now on. INVALID_ARGUMENT where it is not as much as there are
  // tokens.
  absl::Status SetReference(ReferenceLogprobs reference);
  // Absent: the job has none.
  const std::optional<ValidationSet>& validation() const { return validation_; }
  // Of a sample, before it is cut off or left out.
  int64_t max_sample_tokens() const { return max_sample_tokens_; }
  // At least 1.
  int64_t validate_every_steps() const { return validate_every_steps_; }
  // What the observer was told.
  DataReport report() const;
  const Tokenizer& tokenizer() const { return tokenizer_; }
  // The status says why there is none.
  const absl::StatusOr<ChatTemplate>& chat_template() const { return chat_template_; }
  // A row of real data.
  const MicroBatch& sample() const { return sample_; }

 private:
  TrainingData(Tokenizer tokenizer, absl::StatusOr<ChatTemplate> chat_template, const std::string& eos_token,
               TrainOn train_on, int64_t max_sample_tokens);
  absl::Status Read(const TrainJob& job, int64_t pad_token, const std::atomic<bool>& stop);
  void Describe(TrainObserver& observer) const;

  // The builder refers to the two before it, the stream to the builder.
  const Tokenizer tokenizer_;
  const absl::StatusOr<ChatTemplate> chat_template_;
  const SampleBuilder builder_;
  const int64_t max_sample_tokens_;
  std::unique_ptr<BatchStream> batches_;
  std::optional<ValidationSet> validation_;
  int64_t validate_every_steps_ = 1;
  MicroBatch sample_;
};

}  // namespace temper
