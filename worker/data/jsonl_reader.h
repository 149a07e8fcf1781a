// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/data/byte_source.h"
#include "worker/data/record_reader.h"

namespace temper {

// The lines of a JSONL file, compressed or not (ByteSource). Blank lines and a UTF-8 byte order mark are skipped.
class JsonlReader : public RecordReader {
 public:
  // `uri` is a file in an object store (common/storage). Errors as OpenDataFile.
  static absl::StatusOr<std::unique_ptr<RecordReader>> Open(std::string_view uri);

  // INVALID_ARGUMENT for a line of more than 256 MiB and as ByteSource::Next.
  absl::StatusOr<std::optional<Record>> Next() override;
  const std::string& where() const override { return where_; }
  double fraction_read() const override;

 private:
  JsonlReader(ByteSource bytes, std::string_view uri);
  absl::StatusOr<bool> Fill();  // false at the end of the file

  ByteSource bytes_;
  const std::string where_;
  std::string buffer_;  // what was read and not yet given out begins at begin_
  size_t begin_ = 0;
  double read_before_ = 0;  // the file's share before the buffer
  int64_t line_number_ = 0;
};

}  // namespace temper
