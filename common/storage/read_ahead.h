// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <future>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/object_store.h"

namespace temper {

// Reads an object from front to back, a block ahead of who takes it: the bytes are used while the next come, and a
// store that is far away is asked once for a block instead of once for each tensor. Holds two blocks at most, and none
// after the object's end. One thread at a time.
class ReadAhead {
 public:
  static constexpr int64_t kBlockBytes = 16 << 20;

  // `reader` must outlive it. Nothing is read before the first Read().
  explicit ReadAhead(const ObjectReader& reader, int64_t block_bytes = kBlockBytes)
      : reader_(reader), block_bytes_(block_bytes) {}
  // Waits for the block that is on its way.
  ~ReadAhead() = default;
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Exactly the bytes [offset, offset + length), with the errors of ObjectReader::ReadAt(). What lies before the last
  // Read() can be had too, by a request of its own.
  absl::StatusOr<std::string> Read(int64_t offset, int64_t length);

 private:
  // Makes `block_` the one that holds `offset`, and starts to read the one after it.
  absl::Status Turn(int64_t offset);
  void Start(int64_t offset);

  const ObjectReader& reader_;
  const int64_t block_bytes_;
  int64_t begin_ = 0;  // of block_
  std::string block_;
  int64_t next_begin_ = 0;
  std::future<absl::StatusOr<std::string>> next_;  // valid while it is on its way
};

}  // namespace temper
