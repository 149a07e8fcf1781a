// SPDX-License-Identifier: Apache-2.0
#include "worker/train/training_data.h"

#include <algorithm>
#include <ctime>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/storage/object_store.h"
#include "worker/data/sample_builder.h"
#include "worker/text/chat_template.h"
#include "worker/text/template_files.h"
#include "worker/text/tokenizer.h"

namespace temper {
namespace {

absl::StatusOr<int64_t> MaxSampleTokens(const TrainJob& job, const ModelConfig& model) {
  const int64_t asked = job.data.max_sample_tokens;
  if (asked > model.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrFormat("data.max_sample_tokens is %d, but the model has %d positions", asked, model.max_positions));
  }
  return asked > 0 ? asked : std::min(model.max_positions, job.training.micro_batch_tokens);
}

void Describe(const BatchStream& stream, int64_t max_sample_tokens, TrainObserver& observer) {
  const BatchStatistics& batches = stream.statistics();
  const SampleStatistics& samples = batches.samples;
  observer.OnLog(LogSeverity::kInfo,
                 absl::StrFormat("data: %d samples, %d tokens, %d of them scored; %d rows an epoch with %.1f %% room "
                                 "left, %d a step, %d steps",
                                 samples.kept, samples.tokens, samples.scored_tokens, batches.packs_per_epoch,
                                 100 * batches.padding_ratio, batches.micro_batches_per_step, stream.total_steps()));
  if (samples.truncated > 0 || samples.dropped_overlong > 0) {
    observer.OnLog(LogSeverity::kWarning,
                   absl::StrFormat("data: of %d samples, %d were longer than %d tokens and cut off, %d were left out",
                                   samples.read, samples.truncated, max_sample_tokens, samples.dropped_overlong));
  }
  if (samples.refused > 0) {
    observer.OnLog(LogSeverity::kWarning, absl::StrFormat("data: %d of %d samples were left out; the first: %s",
                                                          samples.refused, samples.read, samples.first_refusal));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<BatchStream>> OpenTrainingData(const TrainJob& job, const ModelConfig& model,
                                                              TrainObserver& observer, const std::atomic<bool>& stop) {
  const auto max_sample_tokens = MaxSampleTokens(job, model);
  if (!max_sample_tokens.ok()) return max_sample_tokens.status();
  const auto directory = ObjectStore::Open(job.model_uri);
  if (!directory.ok()) return directory.status();
  const auto tokenizer = Tokenizer::Open(**directory);
  if (!tokenizer.ok()) return tokenizer.status();
  if (tokenizer->max_id() >= model.vocab_size) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: the tokenizer has ids up to %d, but the model's embedding has only %d rows: the tokenizer belongs to "
        "another model, or the embedding was not resized after tokens were added",
        job.model_uri, tokenizer->max_id(), model.vocab_size));
  }
  // Texts need no template, and a base model has none: who needs one says so.
  const auto chat_template = ChatTemplate::Open(**directory, std::time(nullptr));
  if (!chat_template.ok() && !absl::IsFailedPrecondition(chat_template.status())) return chat_template.status();
  const auto special_tokens = ReadSpecialTokens(**directory);
  if (!special_tokens.ok()) return special_tokens.status();
  const SampleBuilder builder(*tokenizer, chat_template, special_tokens->value("eos_token", ""), job.data.train_on);

  BatchOptions options;
  options.uri = job.data.uri;
  options.columns = job.data.columns;
  options.max_sample_tokens = *max_sample_tokens;
  options.overlong = job.data.overlong == OverlongPolicy::kDrop ? OverlongSamples::kDrop : OverlongSamples::kTruncate;
  options.micro_batch_tokens = job.training.micro_batch_tokens;
  options.tokens_per_step = job.training.tokens_per_step;
  options.steps = job.training.steps;
  options.epochs = job.training.epochs;
  options.seed = static_cast<uint64_t>(job.training.seed);
  options.threads = job.threads > 0 ? job.threads : static_cast<int>(std::thread::hardware_concurrency());
  options.stop = &stop;
  auto stream = BatchStream::Open(options, builder);
  if (stream.ok()) Describe(**stream, *max_sample_tokens, observer);
  return stream;
}

}  // namespace temper
