// SPDX-License-Identifier: Apache-2.0
#include "worker/data/batch_stream.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/data/packed_row.h"
#include "worker/data/shuffle.h"

namespace temper {
namespace {

constexpr uint64_t kBlockSeed = 0x2545f4914f6cdd1d;  // any large odd number
constexpr double kRounding = 1e-9;                   // of a share of the data

absl::Status Check(const BatchOptions& options) {
  const auto invalid = [](auto... text) { return absl::InvalidArgumentError(absl::StrCat(text...)); };
  if (options.micro_batch_tokens < 2) {
    return invalid("micro_batch_tokens is ", options.micro_batch_tokens, "; a token and its target need at least 2");
  }
  if (options.tokens_per_step < 1)
    return invalid("tokens_per_step is ", options.tokens_per_step, "; it must be positive");
  if (options.samples.max_tokens < 2) {
    return invalid("max_sample_tokens is ", options.samples.max_tokens, "; a token and its target need at least 2");
  }
  if (options.samples.pairs && 2 * options.samples.max_tokens > options.micro_batch_tokens) {
    return invalid("max_sample_tokens (", options.samples.max_tokens, ") is more than half of micro_batch_tokens (",
                   options.micro_batch_tokens,
                   "): the two answers of a pair go through the model together. Lower the one or raise the other");
  }
  if (options.samples.max_tokens > options.micro_batch_tokens) {
    return invalid("max_sample_tokens (", options.samples.max_tokens, ") is more than micro_batch_tokens (",
                   options.micro_batch_tokens, "): samples are never split. Lower the one or raise the other");
  }
  const bool by_epochs = std::isfinite(options.epochs) && options.epochs > 0;
  if ((options.steps > 0) == by_epochs || options.steps < 0) {
    return invalid("exactly one of steps (", options.steps, ") and epochs (", options.epochs, ") must be positive");
  }
  double weights = 0;
  for (const DataSource& source : options.samples.sources) {
    if (!std::isfinite(source.weight) || source.weight < 0)
      return invalid("the weight of ", source.uri, " is ", source.weight);
    weights += source.weight;
  }
  if (weights == 0) return invalid("the weights of all data sources are 0: nothing is left to train on");
  return absl::OkStatus();
}

// Scored tokens that have one before them in their document.
int64_t CountTargets(const SampleSet& samples, int64_t sample) {
  int64_t targets = 0;
  for (int i = 0; i < samples.documents_per_sample(); ++i) {
    const auto scored = samples.document(sample, i).scored;
    targets += std::count(scored.begin() + 1, scored.end(), 1);
  }
  return targets;
}

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

absl::StatusOr<std::unique_ptr<BatchStream>> BatchStream::Open(const BatchOptions& options,
                                                               const SampleBuilder& builder) {
  BatchOptions resolved = options;
  if (resolved.samples.max_tokens == 0)
    resolved.samples.max_tokens = resolved.micro_batch_tokens / (resolved.samples.pairs ? 2 : 1);
  const absl::Status checked = Check(resolved);
  if (!checked.ok()) return checked;
  const double epochs = options.steps > 0 ? std::numeric_limits<double>::infinity() : options.epochs;
  absl::StatusOr<std::unique_ptr<BlockStream>> blocks =
      BlockStream::Open(resolved.samples, builder, epochs, resolved.threads);
  if (!blocks.ok()) return blocks.status();
  absl::StatusOr<SampleBlock> first = (*blocks)->Next();
  if (!first.ok()) return first.status();
  auto stream = std::unique_ptr<BatchStream>(new BatchStream(resolved, *std::move(blocks)));
  stream->Enter(*std::move(first));
  stream->Describe();
  if (stream->total_rows_ == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the weights of the data sources leave no sample in ", options.epochs, " epochs: raise them"));
  }
  return stream;
}

BatchStream::BatchStream(const BatchOptions& options, std::unique_ptr<BlockStream> blocks)
    : options_(options), blocks_(std::move(blocks)) {}

// The samples of a block, each as often as its source's weight says.
Packer BatchStream::PackerOf(const SampleBlock& block) const {
  const SampleSet& samples = *block.samples;
  std::vector<int64_t> chosen;
  for (int64_t sample = 0; sample < samples.size(); ++sample) {
    const double weight = options_.samples.sources[samples.source(sample)].weight;
    const double whole = std::floor(weight);
    chosen.insert(chosen.end(), static_cast<size_t>(whole), sample);
    // Turned on by the part of a sample that an epoch takes: over the epochs, every sample gets its share.
    double place = UniformHash(options_.seed, samples.source(sample), samples.ordinal(sample));
    place += static_cast<double>(block.epoch) * (weight - whole);
    if (place - std::floor(place) < weight - whole) chosen.push_back(sample);
  }
  const uint64_t seed = options_.seed + static_cast<uint64_t>(block.index) * kBlockSeed;
  std::vector<int64_t> order = ShuffledOrder(static_cast<int64_t>(chosen.size()), seed, block.epoch);
  for (int64_t& place : order) place = chosen[place];
  return Packer(
      std::move(order), [&samples](int64_t sample) { return samples.length(sample); }, options_.micro_batch_tokens);
}

int64_t BatchStream::CountRows(const SampleBlock& block) const {
  Packer packer = PackerOf(block);
  int64_t rows = 0;
  while (!packer.NextRow().empty()) ++rows;
  return rows;
}

void BatchStream::Enter(SampleBlock block) {
  block_ = std::move(block);
  packer_ = PackerOf(block_);
  block_rows_ = CountRows(block_);
  position_.epoch = block_.epoch;
  position_.block = block_.index;
  position_.row = 0;
}

void BatchStream::Describe() {
  statistics_.samples = blocks_->statistics();
  statistics_.micro_batches_per_step = CeilDivide(options_.tokens_per_step, options_.micro_batch_tokens);
  statistics_.data_share = block_.end;
  statistics_.packs_per_epoch = static_cast<int64_t>(std::ceil(static_cast<double>(block_rows_) / block_.end));
  int64_t tokens = 0;
  Packer packer = PackerOf(block_);
  for (std::vector<int64_t> row = packer.NextRow(); !row.empty(); row = packer.NextRow()) {
    for (const int64_t sample : row) tokens += block_.samples->length(sample);
  }
  const double room = static_cast<double>(block_rows_) * static_cast<double>(options_.micro_batch_tokens);
  statistics_.padding_ratio = 1.0 - static_cast<double>(tokens) / std::max(1.0, room);
  if (options_.steps > 0 || !blocks_->whole()) return;
  // Every epoch is packed anew, so its rows are counted; only the last one may be taken in part.
  int64_t rows = 0;
  double left = options_.epochs;
  for (SampleBlock epoch = block_; left > 0; ++epoch.epoch, left -= 1) {
    const int64_t epoch_rows = CountRows(epoch);
    rows += left >= 1 ? epoch_rows : static_cast<int64_t>(std::ceil(left * static_cast<double>(epoch_rows)));
  }
  total_rows_ = rows;
}

int64_t BatchStream::total_steps() const {
  if (options_.steps > 0) return options_.steps;
  if (total_rows_.has_value()) return CeilDivide(*total_rows_, statistics_.micro_batches_per_step);
  const double done = std::min(epochs_done(), options_.epochs);
  // At the speed so far, which is known when one block is behind.
  const double rows_per_epoch = rows_given_ < block_rows_ || done == 0
                                    ? static_cast<double>(statistics_.packs_per_epoch)
                                    : static_cast<double>(rows_given_) / done;
  const int64_t rows_left = static_cast<int64_t>(std::ceil((options_.epochs - done) * rows_per_epoch - kRounding));
  return std::max(position_.step, CeilDivide(rows_given_ + rows_left, statistics_.micro_batches_per_step));
}

bool BatchStream::AtEnd() const {
  if (options_.steps > 0) return position_.step == options_.steps;
  if (total_rows_.has_value()) return rows_given_ == *total_rows_;
  return epochs_done() >= options_.epochs - kRounding;
}

absl::StatusOr<MicroBatch> BatchStream::NextRow() {
  std::vector<int64_t> row = packer_->NextRow();
  while (row.empty()) {
    absl::StatusOr<SampleBlock> block = blocks_->Next();
    if (!block.ok()) return block.status();
    Enter(*std::move(block));
    row = packer_->NextRow();
  }
  ++position_.row;
  ++rows_given_;
  return Pack(row);
}

MicroBatch BatchStream::Pack(const std::vector<int64_t>& row) const {
  MicroBatch batch = PackRow(*block_.samples, row, options_.micro_batch_tokens);
  if (reference_.empty()) return batch;
  for (const int64_t sample : row) {
    const auto begin = reference_.begin();
    batch.reference_S.insert(batch.reference_S.end(), begin + reference_begins_[sample],
                             begin + reference_begins_[sample + 1]);
  }
  return batch;
}

absl::Status BatchStream::SetReference(std::vector<float> logprobs) {
  std::vector<int64_t> begins = {0};
  for (int64_t sample = 0; sample < block_.samples->size(); ++sample) {
    begins.push_back(begins.back() + CountTargets(*block_.samples, sample));
  }
  if (begins.back() != std::ssize(logprobs)) {
    return absl::InvalidArgumentError(absl::StrCat("the data has ", begins.back(), " scored tokens, but there are ",
                                                   logprobs.size(), " log-probabilities of a reference"));
  }
  reference_ = std::move(logprobs);
  reference_begins_ = std::move(begins);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<MicroBatch>> BatchStream::NextStep() {
  std::vector<MicroBatch> step;
  for (int64_t i = 0; i < statistics_.micro_batches_per_step && !AtEnd(); ++i) {
    absl::StatusOr<MicroBatch> row = NextRow();
    if (!row.ok()) return row.status();
    step.push_back(*std::move(row));
  }
  if (!step.empty()) ++position_.step;
  return step;
}

MicroBatch BatchStream::FirstRow() const {
  Packer packer = PackerOf(block_);
  return PackRow(*block_.samples, packer.NextRow(), options_.micro_batch_tokens);
}

double BatchStream::epochs_done() const {
  const double row = block_rows_ == 0 ? 1.0 : static_cast<double>(position_.row) / static_cast<double>(block_rows_);
  return static_cast<double>(position_.epoch) + block_.begin + (block_.end - block_.begin) * row;
}

absl::Status BatchStream::Seek(const BatchPosition& position) {
  const auto out_of_range = [&] {
    return absl::OutOfRangeError(
        absl::StrCat("the data has no position (epoch ", position.epoch, ", block ", position.block, ", row ",
                     position.row, ", step ", position.step,
                     "). Data, model and data options must be those that the checkpoint was written with"));
  };
  if (position.epoch < 0 || position.block < 0 || position.row < 0 || position.step < 0) return out_of_range();
  if (options_.steps > 0 && position.step > options_.steps) return out_of_range();
  int64_t rows_given = position.step * statistics_.micro_batches_per_step;
  if (total_rows_.has_value()) rows_given = std::min(rows_given, *total_rows_);
  if (blocks_->whole()) {
    int64_t rows = position.row;
    for (SampleBlock before{.samples = block_.samples}; before.epoch < position.epoch && rows <= rows_given;
         ++before.epoch) {
      rows += CountRows(before);
    }
    if (rows != rows_given) return out_of_range();
  }
  const absl::Status sought = blocks_->Seek(position.epoch, position.block);
  if (absl::IsOutOfRange(sought)) return out_of_range();
  if (!sought.ok()) return sought;
  absl::StatusOr<SampleBlock> block = blocks_->Next();
  if (!block.ok()) return block.status();
  if (block->epoch != position.epoch || block->index != position.block) return out_of_range();
  Enter(*std::move(block));
  for (int64_t row = 0; row < position.row; ++row) {
    if (packer_->NextRow().empty()) return out_of_range();
  }
  position_ = position;
  rows_given_ = rows_given;
  return absl::OkStatus();
}

}  // namespace temper
