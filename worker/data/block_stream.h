// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "worker/data/sample_reader.h"
#include "worker/data/sample_set.h"

namespace temper {

// A stretch of an epoch.
struct SampleBlock {
  std::shared_ptr<const SampleSet> samples;
  int64_t epoch = 0;  // from 0
  int64_t index = 0;  // in the epoch, from 0
  double begin = 0;   // share of the epoch's data before it
  double end = 1;     // and at its end
};

// The data, again and again, block by block. The next block is read and tokenised in the background while one is used;
// data that is one block is read once. One thread.
class BlockStream {
 public:
  // `epochs` is how many will be asked for at most. The builder must outlive the stream. Errors as SampleReader::Open.
  static absl::StatusOr<std::unique_ptr<BlockStream>> Open(const SampleOptions& options, const SampleBuilder& builder,
                                                           double epochs, int threads);
  // Waits for what is read in the background, which ends soon.
  ~BlockStream();
  BlockStream(const BlockStream&) = delete;
  BlockStream& operator=(const BlockStream&) = delete;

  bool whole() const { return whole_; }

  // The next block; after an epoch's last one, the first of the next epoch. Errors as SampleReader::Next.
  absl::StatusOr<SampleBlock> Next();

  // Next() gives this block then. OUT_OF_RANGE when an epoch has no such block.
  absl::Status Seek(int64_t epoch, int64_t index);

  // Of the first block that Next() gave.
  const SampleStatistics& statistics() const { return statistics_; }

 private:
  BlockStream(const SampleOptions& options, const SampleBuilder& builder, double epochs, int threads);
  absl::Status Rewind();
  absl::StatusOr<SampleBlock> Read(int threads);
  void ReadInBackground();

  SampleOptions options_;
  const SampleBuilder& builder_;
  const double epochs_;
  const int threads_;
  std::atomic<bool> quit_ = false;
  bool whole_ = false;
  std::shared_ptr<const SampleSet> everything_;  // when whole, once it has been read
  std::unique_ptr<SampleReader> reader_;
  int64_t epoch_ = 0;  // of the next block
  int64_t index_ = 0;
  std::optional<std::future<absl::StatusOr<SampleBlock>>> next_;  // being read
  SampleStatistics statistics_;
};

}  // namespace temper
