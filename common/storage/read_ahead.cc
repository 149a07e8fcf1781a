// SPDX-License-Identifier: Apache-2.0
#include "common/storage/read_ahead.h"

#include <algorithm>
#include <utility>

namespace temper {

absl::StatusOr<std::string> ReadAhead::Read(int64_t offset, int64_t length) {
  // What is out of range has its error there.
  if (offset < begin_ || length < 0 || length > reader_.size() - offset) return reader_.ReadAt(offset, length);
  std::string bytes;
  bytes.reserve(length);
  while (length > 0) {
    if (offset >= begin_ + std::ssize(block_)) {
      if (absl::Status status = Turn(offset); !status.ok()) return status;
    }
    const int64_t from = offset - begin_;
    const int64_t taken = std::min(length, std::ssize(block_) - from);
    bytes.append(block_, from, taken);
    offset += taken;
    length -= taken;
  }
  if (offset == reader_.size()) {
    begin_ = offset;
    block_ = {};
  }
  return bytes;
}

absl::Status ReadAhead::Turn(int64_t offset) {
  if (next_.valid() && next_begin_ != offset) next_.get();  // a gap was jumped
  if (!next_.valid()) Start(offset);
  absl::StatusOr<std::string> block = next_.get();
  if (!block.ok()) return block.status();
  begin_ = offset;
  block_ = *std::move(block);
  if (const int64_t end = begin_ + std::ssize(block_); end < reader_.size()) Start(end);
  return absl::OkStatus();
}

void ReadAhead::Start(int64_t offset) {
  next_begin_ = offset;
  next_ = std::async(std::launch::async, [this, offset] {
    return reader_.ReadAt(offset, std::min(block_bytes_, reader_.size() - offset));
  });
}

}  // namespace temper
