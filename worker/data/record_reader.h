// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/data/sample.h"

namespace temper {

class ObjectReader;

// A sample as it stands in a file.
struct Record {
  std::string text;    // a JSON object
  int64_t number = 0;  // of the line or row, from 1
};

// The records of one data file, one after another, without holding the file in memory. What stands in a record is the
// caller's business. One thread.
class RecordReader {
 public:
  virtual ~RecordReader() = default;

  // Absent at the end. INVALID_ARGUMENT, with the file's name, for what is damaged; else as ObjectReader has it.
  virtual absl::StatusOr<std::optional<Record>> Next() = 0;

  // What a person calls a record, without its number: "URI, line ".
  virtual const std::string& where() const = 0;

  // The share of the file that has been read, 0 to 1; never falls.
  virtual double fraction_read() const = 0;
};

// A reader for `uri`, chosen by its name: *.parquet is Parquet, anything else JSONL, decompressed when it ends in .gz
// or .zst. `columns` says what the fields are called, so that no others need to be read. NOT_FOUND, PERMISSION_DENIED,
// … as ObjectStore has them, INVALID_ARGUMENT when the file is not what its name says.
absl::StatusOr<std::unique_ptr<RecordReader>> OpenRecords(std::string_view uri, const ColumnNames& columns);

// Opens a data file. Errors say what data.uri must be.
absl::StatusOr<std::unique_ptr<ObjectReader>> OpenDataFile(std::string_view uri);

}  // namespace temper
