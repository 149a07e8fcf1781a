// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace temper {

class ObjectReader;

struct JsonLine {
  std::string text;
  int64_t number = 0;  // from 1
};

// The lines of a JSONL file, one after another, without holding the file in memory. Blank lines and a UTF-8 byte order
// mark are skipped; what stands in a line is the caller's business.
class JsonlReader {
 public:
  // `uri` is a file in an object store (common/storage). NOT_FOUND, PERMISSION_DENIED, … as ObjectStore gives them.
  static absl::StatusOr<JsonlReader> Open(std::string_view uri);
  JsonlReader(JsonlReader&&);
  ~JsonlReader();

  // Absent at the end. INVALID_ARGUMENT for a line of more than 256 MiB.
  absl::StatusOr<std::optional<JsonLine>> Next();

  // "URI, line N", for messages.
  std::string Where(int64_t line) const;
  const std::string& uri() const { return uri_; }

 private:
  JsonlReader(std::unique_ptr<ObjectReader> file, std::string uri);
  absl::StatusOr<bool> Fill();  // false at the end of the file

  std::unique_ptr<ObjectReader> file_;
  std::string uri_;
  std::string buffer_;  // what was read and not yet given out begins at begin_
  size_t begin_ = 0;
  int64_t offset_ = 0;  // of the file's first byte that is not in the buffer
  int64_t line_number_ = 0;
};

}  // namespace temper
