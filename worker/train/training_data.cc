// SPDX-License-Identifier: Apache-2.0
#include "worker/train/training_data.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/counted.h"
#include "common/failure.h"
#include "common/storage/object_store.h"
#include "worker/text/template_files.h"
#include "worker/train/reference_pass.h"
#include "worker/train/threads.h"

namespace temper {
namespace {

absl::StatusOr<int64_t> MaxSampleTokens(const TrainJob& job, const ModelConfig& model) {
  const int64_t asked = job.data.max_sample_tokens;
  if (asked > model.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrFormat("data.max_sample_tokens is %d, but the model has %d positions", asked, model.max_positions));
  }
  const int64_t room = job.training.micro_batch_tokens / (job.pairs() ? 2 : 1);
  return asked > 0 ? asked : std::min(model.max_positions, room);
}

}  // namespace

TrainingData::TrainingData(Tokenizer tokenizer, absl::StatusOr<ChatTemplate> chat_template,
                           const std::string& eos_token, TrainOn train_on, int64_t max_sample_tokens)
    : tokenizer_(std::move(tokenizer)),
      chat_template_(std::move(chat_template)),
      builder_(tokenizer_, chat_template_, eos_token, train_on),
      max_sample_tokens_(max_sample_tokens) {}

absl::StatusOr<std::unique_ptr<TrainingData>> TrainingData::Open(const TrainJob& job, const ModelConfig& model,
                                                                 TrainObserver& observer,
                                                                 const std::atomic<bool>& stop) {
  const auto max_sample_tokens = MaxSampleTokens(job, model);
  if (!max_sample_tokens.ok()) return max_sample_tokens.status();
  const auto directory = ObjectStore::Open(job.model_uri);
  if (!directory.ok()) return directory.status();
  auto tokenizer = Tokenizer::Open(**directory);
  if (!tokenizer.ok()) return tokenizer.status();
  if (tokenizer->max_id() >= model.vocab_size) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: the tokenizer has ids up to %d, but the model's embedding has only %d rows: the tokenizer belongs to "
        "another model, or the embedding was not resized after tokens were added",
        job.model_uri, tokenizer->max_id(), model.vocab_size));
  }
  // Texts need no template, and a base model has none: who needs one says so.
  auto chat_template = ChatTemplate::Open(**directory, job.created > 0 ? job.created : std::time(nullptr));
  if (!chat_template.ok() && !absl::IsFailedPrecondition(chat_template.status())) return chat_template.status();
  const auto special_tokens = ReadSpecialTokens(**directory);
  if (!special_tokens.ok()) return special_tokens.status();

  auto data = std::unique_ptr<TrainingData>(
      new TrainingData(*std::move(tokenizer), std::move(chat_template), special_tokens->value("eos_token", ""),
                       job.reward ? TrainOn::kAll : job.data.train_on, *max_sample_tokens));
  if (const absl::Status read = data->Read(job, model.pad_token, stop); !read.ok()) return read;
  data->Describe(observer);
  return data;
}

absl::Status TrainingData::Read(const TrainJob& job, int64_t pad_token, const std::atomic<bool>& stop) {
  const auto seed = static_cast<uint64_t>(job.training.seed);
  BatchOptions options;
  SampleOptions& samples = options.samples;
  samples.sources = job.data.sources;
  samples.pairs = job.pairs();
  if (job.distillation && job.distillation->teacher.empty()) samples.teacher_vocab = tokenizer_.max_id() + 1;
  if (job.reward) samples.scored_at_end = pad_token;
  samples.max_tokens = max_sample_tokens_;
  samples.overlong = job.data.overlong == OverlongPolicy::kDrop ? OverlongSamples::kDrop : OverlongSamples::kTruncate;
  samples.stopped = [&stop] { return stop.load(); };
  if (job.validation && job.validation->share > 0) {
    samples.split = {.part = RecordSplit::Part::kTraining, .held_out_share = job.validation->share, .seed = seed};
  }
  options.micro_batch_tokens = job.training.micro_batch_tokens;
  options.tokens_per_step = job.training.tokens_per_step;
  options.steps = job.training.steps;
  options.epochs = job.training.epochs;
  options.seed = seed;
  options.threads = ThreadsOf(job);
  auto batches = BatchStream::Open(options, builder_);
  if (!batches.ok()) return batches.status();
  batches_ = *std::move(batches);
  if (NeedsReferencePass(job) && !batches_->whole()) {
    return absl::InvalidArgumentError(
        "the data is more than 32 MiB, and a reference other than the model without its adapters is computed over all "
        "of it before the first step: train new adapters (lora, without lora.adapter and lora.modules_to_save), choose "
        "a method.preference.loss without a reference (simpo, orpo), or give fewer pairs");
  }
  sample_ = batches_->FirstRow();
  if (!job.validation) return absl::OkStatus();

  if (samples.split.part == RecordSplit::Part::kTraining) {
    samples.split.part = RecordSplit::Part::kHeldOut;
  } else {
    samples.sources = job.validation->sources;
  }
  auto validation =
      ReadValidationSet(samples, job.validation->max_samples, options.micro_batch_tokens, builder_, options.threads);
  if (!validation.ok()) {
    return WithCause(
        absl::Status(validation.status().code(), absl::StrCat("validation: ", validation.status().message())),
        CauseOf(validation.status()));
  }
  validation_ = *std::move(validation);
  constexpr int64_t kValidations = 10;
  validate_every_steps_ = job.validation->every_steps > 0
                              ? job.validation->every_steps
                              : std::max<int64_t>(1, batches_->total_steps() / kValidations);
  return absl::OkStatus();
}

absl::Status TrainingData::SetReference(ReferenceLogprobs reference) {
  const absl::Status training = batches_->SetReference(std::move(reference.training));
  if (!training.ok() || !validation_) return training;
  return validation_->SetReference(reference.validation);
}

DataReport TrainingData::report() const {
  const BatchStatistics& batches = batches_->statistics();
  return {.samples = batches.samples,
          .rows_per_epoch = batches.packs_per_epoch,
          .padding_ratio = batches.padding_ratio,
          .data_share = batches.data_share,
          .validation_samples = validation_ ? validation_->samples : 0};
}

void TrainingData::Describe(TrainObserver& observer) const {
  const BatchStatistics& batches = batches_->statistics();
  const SampleStatistics& samples = batches.samples;
  observer.OnData(report());
  if (batches.data_share < 1) {
    observer.OnLog(LogSeverity::kInfo,
                   absl::StrFormat("data: more than 32 MiB, which is tokenised as it is needed; what follows is from "
                                   "the first %.2g %% of it, and steps are estimated",
                                   100 * batches.data_share));
  }
  observer.OnLog(
      LogSeverity::kInfo,
      absl::StrFormat("data: %s, %s, %d of them scored; %s an epoch with %.1f %% room left, %d a step, %s",
                      Counted(samples.kept, "sample"), Counted(samples.tokens, "token"), samples.scored_tokens,
                      Counted(batches.packs_per_epoch, "row"), 100 * batches.padding_ratio,
                      batches.micro_batches_per_step, Counted(batches_->total_steps(), "step")));
  if (validation_) {
    observer.OnLog(
        LogSeverity::kInfo,
        absl::StrFormat("validation: %s, %s scored, every %s", Counted(validation_->samples, "sample"),
                        Counted(validation_->scored_tokens, "token"), Counted(validate_every_steps_, "step")));
  }
  if (samples.truncated > 0 || samples.dropped_overlong > 0) {
    observer.OnLog(LogSeverity::kWarning,
                   absl::StrFormat("data: of %s, %d longer than %d tokens were cut off, %d left out",
                                   Counted(samples.read, "sample"), samples.truncated, max_sample_tokens_,
                                   samples.dropped_overlong));
  }
  if (samples.refused > 0) {
    observer.OnLog(LogSeverity::kWarning, absl::StrFormat("data: left out %d of %s; the first: %s", samples.refused,
                                                          Counted(samples.read, "sample"), samples.first_refusal));
  }
}

}  // namespace temper
