// SPDX-License-Identifier: Apache-2.0
#include "worker/data/batch_stream.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/data/shuffle.h"

namespace temper {
namespace {

absl::Status Check(const BatchOptions& options) {
  const auto invalid = [](auto... text) { return absl::InvalidArgumentError(absl::StrCat(text...)); };
  if (options.micro_batch_tokens < 2) {
    return invalid("micro_batch_tokens is ", options.micro_batch_tokens, "; a token and its target need at least 2");
  }
  if (options.tokens_per_step < 1)
    return invalid("tokens_per_step is ", options.tokens_per_step, "; it must be positive");
  if (options.max_sample_tokens != 0 && options.max_sample_tokens < 2) {
    return invalid("max_sample_tokens is ", options.max_sample_tokens, "; a token and its target need at least 2");
  }
  if (options.max_sample_tokens > options.micro_batch_tokens) {
    return invalid("max_sample_tokens (", options.max_sample_tokens, ") is more than micro_batch_tokens (",
                   options.micro_batch_tokens, "): samples are never split. Lower the one or raise the other");
  }
  const bool by_epochs = std::isfinite(options.epochs) && options.epochs > 0;
  if ((options.steps > 0) == by_epochs || options.steps < 0) {
    return invalid("exactly one of steps (", options.steps, ") and epochs (", options.epochs, ") must be positive");
  }
  return absl::OkStatus();
}

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

absl::StatusOr<std::unique_ptr<BatchStream>> BatchStream::Open(const BatchOptions& options,
                                                               const SampleBuilder& builder) {
  absl::Status checked = Check(options);
  if (!checked.ok()) return checked;
  BatchOptions resolved = options;
  if (resolved.max_sample_tokens == 0) resolved.max_sample_tokens = resolved.micro_batch_tokens;
  absl::StatusOr<SampleSet> samples = SampleSet::Read({.uri = resolved.uri,
                                                       .columns = resolved.columns,
                                                       .max_tokens = resolved.max_sample_tokens,
                                                       .overlong = resolved.overlong,
                                                       .threads = resolved.threads,
                                                       .stop = resolved.stop},
                                                      builder);
  if (!samples.ok()) return samples.status();
  return std::unique_ptr<BatchStream>(new BatchStream(resolved, *std::move(samples)));
}

BatchStream::BatchStream(const BatchOptions& options, SampleSet samples)
    : options_(options), samples_(std::move(samples)), packer_(PackerOf(0)) {
  statistics_.samples = samples_.statistics();
  statistics_.micro_batches_per_step = CeilDivide(options_.tokens_per_step, options_.micro_batch_tokens);
  Plan();
}

Packer BatchStream::PackerOf(int64_t epoch) const {
  return Packer(
      ShuffledOrder(samples_.size(), options_.seed, epoch), [this](int64_t sample) { return samples_.length(sample); },
      options_.micro_batch_tokens);
}

int64_t BatchStream::CountRows(int64_t epoch) const {
  Packer packer = PackerOf(epoch);
  int64_t rows = 0;
  while (!packer.NextRow().empty()) ++rows;
  return rows;
}

void BatchStream::Plan() {
  epoch_rows_ = statistics_.packs_per_epoch = CountRows(0);
  const double room = static_cast<double>(epoch_rows_) * static_cast<double>(options_.micro_batch_tokens);
  statistics_.padding_ratio = 1.0 - static_cast<double>(statistics_.samples.tokens) / room;
  if (options_.steps > 0) {
    total_steps_ = options_.steps;
    return;
  }
  // Every epoch is packed anew, so its rows are counted; only the last one may be taken in part.
  int64_t rows = 0;
  double left = options_.epochs;
  for (int64_t epoch = 0; left > 0; ++epoch, left -= 1) {
    const int64_t epoch_rows = epoch == 0 ? epoch_rows_ : CountRows(epoch);
    rows += left >= 1 ? epoch_rows : static_cast<int64_t>(std::ceil(left * static_cast<double>(epoch_rows)));
  }
  total_rows_ = rows;
  total_steps_ = CeilDivide(rows, statistics_.micro_batches_per_step);
}

std::vector<int64_t> BatchStream::NextRow() {
  std::vector<int64_t> row = packer_.NextRow();
  if (row.empty()) {
    ++position_.epoch;
    position_.row = 0;
    packer_ = PackerOf(position_.epoch);
    epoch_rows_ = CountRows(position_.epoch);
    row = packer_.NextRow();
  }
  ++position_.row;
  ++rows_given_;
  return row;
}

std::vector<MicroBatch> BatchStream::NextStep() {
  std::vector<MicroBatch> step;
  if (position_.step == total_steps_) return step;
  for (int64_t i = 0; i < statistics_.micro_batches_per_step && rows_given_ != total_rows_; ++i) {
    step.push_back(Build(NextRow()));
  }
  ++position_.step;
  return step;
}

MicroBatch BatchStream::Build(const std::vector<int64_t>& row) const {
  MicroBatch batch{.capacity = options_.micro_batch_tokens};
  for (const int64_t sample : row) {
    batch.document_starts.push_back(batch.num_tokens());
    const absl::Span<const uint32_t> ids = samples_.ids(sample);
    const absl::Span<const uint8_t> scored = samples_.scored(sample);
    for (size_t t = 0; t < ids.size(); ++t) {
      const bool last = t + 1 == ids.size();
      batch.tokens_T.push_back(ids[t]);
      batch.targets_T.push_back(last ? 0 : ids[t + 1]);
      batch.positions_T.push_back(static_cast<int64_t>(t));
      batch.loss_mask_T.push_back(last ? 0 : scored[t + 1]);
    }
  }
  batch.document_starts.push_back(batch.num_tokens());
  return batch;
}

double BatchStream::epochs_done() const {
  return static_cast<double>(position_.epoch) + static_cast<double>(position_.row) / static_cast<double>(epoch_rows_);
}

absl::Status BatchStream::Seek(const BatchPosition& position) {
  const auto out_of_range = [&] {
    return absl::OutOfRangeError(absl::StrCat(
        "the data has no position (epoch ", position.epoch, ", row ", position.row, ", step ", position.step,
        "). Data file, model and data options must be those that the checkpoint was written with"));
  };
  if (position.epoch < 0 || position.row < 0 || position.step < 0 || position.step > total_steps_)
    return out_of_range();
  int64_t rows_before = 0;
  for (int64_t epoch = 0; epoch < position.epoch; ++epoch) rows_before += CountRows(epoch);
  const int64_t rows_given = rows_before + position.row;
  const int64_t rows_of_steps = position.step * statistics_.micro_batches_per_step;
  if (rows_given != (total_rows_ ? std::min(rows_of_steps, *total_rows_) : rows_of_steps)) return out_of_range();

  Packer packer = PackerOf(position.epoch);
  for (int64_t row = 0; row < position.row; ++row) {
    if (packer.NextRow().empty()) return out_of_range();
  }
  packer_ = std::move(packer);
  position_ = position;
  rows_given_ = rows_given;
  epoch_rows_ = CountRows(position.epoch);
  return absl::OkStatus();
}

}  // namespace temper
