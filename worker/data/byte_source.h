// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace arrow::util {
class Decompressor;
}  // namespace arrow::util

namespace temper {

class ObjectReader;

// The bytes of a data file from its beginning, decompressed when its name ends in .gz or .zst. Holds a few MiB whatever
// the file says about itself. One thread.
class ByteSource {
 public:
  // `uri` names the file, also in messages.
  static absl::StatusOr<ByteSource> Open(std::unique_ptr<ObjectReader> file, std::string_view uri);
  ByteSource(ByteSource&&);
  ~ByteSource();

  // The next piece, of at most 4 MiB; empty at the end. INVALID_ARGUMENT for compressed data that is damaged or cut
  // off.
  absl::StatusOr<std::string> Next();

  // The share of the file that has been read, 0 to 1.
  double fraction_read() const;

 private:
  ByteSource(std::unique_ptr<ObjectReader> file, std::string uri);
  absl::StatusOr<std::string> NextInFile();
  absl::Status Damaged(std::string_view what) const;

  std::unique_ptr<ObjectReader> file_;
  std::string uri_;
  int64_t offset_ = 0;                                       // of the file's first byte that was not read
  std::shared_ptr<arrow::util::Decompressor> decompressor_;  // null: the file is not compressed
  std::string input_;                                        // compressed bytes; those from input_begin_ on are to come
  size_t input_begin_ = 0;
  bool within_ = false;  // the compressed data has begun and not ended
};

}  // namespace temper
