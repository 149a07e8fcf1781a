// SPDX-License-Identifier: Apache-2.0
#include "worker/data/block_stream.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace temper {

BlockStream::BlockStream(const SampleOptions& options, const SampleBuilder& builder, double epochs, int threads)
    : options_(options), builder_(builder), epochs_(epochs), threads_(threads) {
  options_.stopped = [this, stopped = options.stopped] { return quit_ || (stopped && stopped()); };
}

BlockStream::~BlockStream() { quit_ = true; }

absl::StatusOr<std::unique_ptr<BlockStream>> BlockStream::Open(const SampleOptions& options,
                                                               const SampleBuilder& builder, double epochs,
                                                               int threads) {
  auto stream = std::unique_ptr<BlockStream>(new BlockStream(options, builder, epochs, threads));
  const absl::Status opened = stream->Rewind();
  if (!opened.ok()) return opened;
  stream->whole_ = stream->reader_->whole();
  return stream;
}

absl::Status BlockStream::Rewind() {
  absl::StatusOr<std::unique_ptr<SampleReader>> reader = SampleReader::Open(options_, builder_);
  if (!reader.ok()) return reader.status();
  reader_ = *std::move(reader);
  return absl::OkStatus();
}

absl::StatusOr<SampleBlock> BlockStream::Read(int threads) {
  while (true) {
    SampleBlock block{.epoch = epoch_, .index = index_, .begin = index_ == 0 ? 0.0 : reader_->fraction_read()};
    absl::StatusOr<std::optional<SampleSet>> samples = reader_->Next(threads);
    if (!samples.ok()) return samples.status();
    if (samples->has_value()) {
      ++index_;
      if ((*samples)->size() == 0) continue;
      block.samples = std::make_shared<const SampleSet>(**std::move(samples));
      block.end = reader_->fraction_read();
      return block;
    }
    const absl::Status rewound = Rewind();
    if (!rewound.ok()) return rewound;
    ++epoch_;
    index_ = 0;
  }
}

void BlockStream::ReadInBackground() {
  // Training has the cores; a block lasts long.
  const int threads = std::max(1, threads_ / 4);
  next_ = std::async(std::launch::async, [this, threads] { return Read(threads); });
}

absl::StatusOr<SampleBlock> BlockStream::Next() {
  if (whole_ && everything_ != nullptr) return SampleBlock{.samples = everything_, .epoch = epoch_++};
  absl::StatusOr<SampleBlock> block = next_.has_value() ? next_->get() : Read(threads_);
  next_.reset();
  if (!block.ok()) return block;
  if (statistics_.read == 0) statistics_ = reader_->statistics();
  if (whole_) {
    everything_ = block->samples;
    reader_.reset();
    block->epoch = epoch_++;
    return block;
  }
  const bool last = block->end >= 1.0 && static_cast<double>(block->epoch + 1) >= epochs_;
  if (!last) ReadInBackground();
  return block;
}

absl::Status BlockStream::Seek(int64_t epoch, int64_t index) {
  const auto out_of_range = [&] {
    return absl::OutOfRangeError(absl::StrCat("the data has no block ", index, " in an epoch"));
  };
  if (whole_) {
    if (index != 0) return out_of_range();
    epoch_ = epoch;
    return absl::OkStatus();
  }
  if (next_.has_value()) next_->wait();
  next_.reset();
  const absl::Status rewound = Rewind();
  if (!rewound.ok()) return rewound;
  const absl::Status skipped = reader_->Skip(index);
  if (absl::IsOutOfRange(skipped)) return out_of_range();
  if (!skipped.ok()) return skipped;
  epoch_ = epoch;
  index_ = index;
  return absl::OkStatus();
}

}  // namespace temper
