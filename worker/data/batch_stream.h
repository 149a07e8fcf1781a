// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/data/block_stream.h"
#include "worker/data/micro_batch.h"
#include "worker/data/packer.h"
#include "worker/data/sample_reader.h"

namespace temper {

struct BatchOptions {
  SampleOptions samples;  // max_tokens 0: micro_batch_tokens, of pairs the half of it; at most that
  int64_t micro_batch_tokens = 2048;
  int64_t tokens_per_step = 4096;  // rounded up to whole micro-batches
  int64_t steps = 0;               // exactly one of steps and
  double epochs = 0;               // epochs is set
  uint64_t seed = 0;               // of the order
  int threads = 1;                 // that tokenise
};

struct BatchStatistics {
  double data_share = 1;     // of the data that the other figures were counted on
  SampleStatistics samples;  // of that share
  int64_t micro_batches_per_step = 0;
  int64_t packs_per_epoch = 0;  // rows of the first epoch; the others differ little. An estimate if data_share < 1
  double padding_ratio = 0;     // share of the rows' room that no token fills
};

// Where a stream is: all that must be stored to go on from there.
struct BatchPosition {
  int64_t epoch = 0;  // of the data, from 0
  int64_t block = 0;  // of that epoch
  int64_t row = 0;    // rows of that block that were given out
  int64_t step = 0;   // steps that were given out

  friend bool operator==(const BatchPosition&, const BatchPosition&) = default;
};

// The micro-batches of a whole training, step by step: samples in a new order every epoch, packed into rows. Data that
// SampleReader gives as one block is tokenised once, and its steps are counted; more is read as it is needed, and
// shuffled block by block. A function of data, tokenizer, template and options alone. One thread.
class BatchStream {
 public:
  // Reads and tokenises the first block. The builder must outlive the stream.
  // INVALID_ARGUMENT for options out of range; otherwise as SampleReader.
  static absl::StatusOr<std::unique_ptr<BatchStream>> Open(const BatchOptions& options, const SampleBuilder& builder);

  // An estimate while the training is given in epochs of data that has several blocks; better and better, and exact at
  // the end.
  int64_t total_steps() const;
  // Whether total_steps() is final.
  bool exact() const { return options_.steps > 0 || total_rows_.has_value(); }
  const BatchStatistics& statistics() const { return statistics_; }

  // The micro-batches of the next optimizer step; the last step may have fewer. Empty at the end. Errors as
  // SampleReader::Next.
  absl::StatusOr<std::vector<MicroBatch>> NextStep();

  // The samples of the current block, in the order of the data.
  const SampleSet& samples() const { return *block_.samples; }

  // Whether there is one block, which is everything.
  bool whole() const { return blocks_->whole(); }

  // MicroBatch::reference_S of all rows from now on: those of samples(), in the order of the data. INVALID_ARGUMENT
  // when it is another number. Of data that is whole.
  absl::Status SetReference(std::vector<float> logprobs);

  // The row that the first step begins with. Before the first step.
  MicroBatch FirstRow() const;

  // How often the data has been gone through.
  double epochs_done() const;

  const BatchPosition& position() const { return position_; }
  // Goes to a position that a stream with the same data and options had. OUT_OF_RANGE when there is none such.
  absl::Status Seek(const BatchPosition& position);

 private:
  BatchStream(const BatchOptions& options, std::unique_ptr<BlockStream> blocks);
  Packer PackerOf(const SampleBlock& block) const;
  int64_t CountRows(const SampleBlock& block) const;
  void Enter(SampleBlock block);
  void Describe();
  bool AtEnd() const;
  absl::StatusOr<MicroBatch> NextRow();
  MicroBatch Pack(const std::vector<int64_t>& row) const;

  BatchOptions options_;
  std::unique_ptr<BlockStream> blocks_;
  BatchStatistics statistics_;
  std::optional<int64_t> total_rows_;  // known when the training is given in epochs of data that is whole
  BatchPosition position_;
  int64_t rows_given_ = 0;  // of all epochs
  SampleBlock block_;       // the current one
  int64_t block_rows_ = 0;
  std::optional<Packer> packer_;  // of the block
  std::vector<float> reference_;
  std::vector<int64_t> reference_begins_;  // by sample, and the end
};

}  // namespace temper
