// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/data/micro_batch.h"
#include "worker/data/packer.h"
#include "worker/data/sample_set.h"

namespace temper {

struct BatchOptions {
  std::string uri;  // as SampleOptions has it
  ColumnNames columns;
  int64_t max_sample_tokens = 0;  // 0: micro_batch_tokens; at most that
  OverlongSamples overlong = OverlongSamples::kTruncate;
  int64_t micro_batch_tokens = 2048;
  int64_t tokens_per_step = 4096;           // rounded up to whole micro-batches
  int64_t steps = 0;                        // exactly one of steps and
  double epochs = 0;                        // epochs is set
  uint64_t seed = 0;                        // of the order
  int threads = 1;                          // that tokenise
  const std::atomic<bool>* stop = nullptr;  // becomes true while data is read: CANCELLED
};

struct BatchStatistics {
  SampleStatistics samples;
  int64_t micro_batches_per_step = 0;
  int64_t packs_per_epoch = 0;  // rows of the first epoch; the others differ little
  double padding_ratio = 0;     // share of those rows' room that no token fills
};

// Where a stream is: all that must be stored to go on from there.
struct BatchPosition {
  int64_t epoch = 0;  // of the data, from 0
  int64_t row = 0;    // rows of that epoch that were given out
  int64_t step = 0;   // steps that were given out

  friend bool operator==(const BatchPosition&, const BatchPosition&) = default;
};

// The micro-batches of a whole training, step by step: samples, tokenised once, in a new order every epoch,
// packed into rows. A function of data, tokenizer, template and options alone. One thread.
class BatchStream {
 public:
  // Reads and tokenises all data. The builder is not needed afterwards.
  // INVALID_ARGUMENT for options out of range; otherwise as SampleSet::Read.
  static absl::StatusOr<std::unique_ptr<BatchStream>> Open(const BatchOptions& options, const SampleBuilder& builder);

  int64_t total_steps() const { return total_steps_; }
  const BatchStatistics& statistics() const { return statistics_; }

  // The micro-batches of the next optimizer step; the last step may have fewer. Empty after total_steps().
  std::vector<MicroBatch> NextStep();

  // How often the data has been gone through.
  double epochs_done() const;

  const BatchPosition& position() const { return position_; }
  // Goes to a position that a stream with the same data and options had. OUT_OF_RANGE when there is none such.
  absl::Status Seek(const BatchPosition& position);

 private:
  BatchStream(const BatchOptions& options, SampleSet samples);
  Packer PackerOf(int64_t epoch) const;
  int64_t CountRows(int64_t epoch) const;
  void Plan();
  std::vector<int64_t> NextRow();
  MicroBatch Build(const std::vector<int64_t>& row) const;

  BatchOptions options_;
  SampleSet samples_;
  BatchStatistics statistics_;
  int64_t total_steps_ = 0;
  std::optional<int64_t> total_rows_;  // absent when the training is given in steps
  BatchPosition position_;
  int64_t rows_given_ = 0;  // of all epochs
  int64_t epoch_rows_ = 0;  // rows of the current epoch
  Packer packer_;
};

}  // namespace temper
