// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/data/record_reader.h"

namespace temper {

// The rows of a Parquet file, each as a JSON object of the columns that a sample may have. A field of a struct that is
// null is left out, as it would be in JSONL: tables have every field in every row. Holds a few pages of each column,
// and at most 2 GiB whatever the file says about itself.
class ParquetReader : public RecordReader {
 public:
  // INVALID_ARGUMENT when the file is not Parquet, is damaged, or has none of the columns; else as OpenDataFile.
  static absl::StatusOr<std::unique_ptr<RecordReader>> Open(std::string_view uri, const ColumnNames& columns);
  ~ParquetReader() override;

  // INVALID_ARGUMENT for damaged data, text that is not UTF-8, and values that JSON does not have.
  absl::StatusOr<std::optional<Record>> Next() override;
  const std::string& where() const override;
  double fraction_read() const override;

 private:
  class Table;
  explicit ParquetReader(std::unique_ptr<Table> table);

  std::unique_ptr<Table> table_;
};

}  // namespace temper
