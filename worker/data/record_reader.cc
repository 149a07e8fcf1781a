// SPDX-License-Identifier: Apache-2.0
#include "worker/data/record_reader.h"

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "common/storage/object_store.h"
#include "common/storage/storage_uri.h"
#include "worker/data/jsonl_reader.h"
#include "worker/data/parquet_reader.h"

namespace temper {

absl::StatusOr<std::unique_ptr<ObjectReader>> OpenDataFile(std::string_view uri) {
  const std::optional<UriOfName> parts = SplitUri(uri);
  if (!parts) {
    return absl::InvalidArgumentError(absl::StrCat(
        "data.uri \"", std::string(uri),
        "\" is not the URI of a file. Give file:///path/data.jsonl, /path/data.jsonl, s3://bucket/data.jsonl, …"));
  }
  absl::StatusOr<std::unique_ptr<ObjectStore>> directory = ObjectStore::Open(parts->directory);
  if (!directory.ok()) return directory.status();
  absl::StatusOr<std::unique_ptr<ObjectReader>> file = (*directory)->OpenForRead(parts->name);
  if (absl::IsNotFound(file.status())) {
    return absl::NotFoundError(absl::StrCat("there is no data file ", std::string(uri),
                                            ". Correct data.uri; the path must exist where the worker runs"));
  }
  if (!file.ok()) {
    return WithCause(absl::Status(file.status().code(), absl::StrCat("data.uri must be a data file that can be read: ",
                                                                     file.status().message())),
                     CauseOf(file.status()));
  }
  return file;
}

absl::StatusOr<std::unique_ptr<RecordReader>> OpenRecords(std::string_view uri, const ColumnNames& columns) {
  if (WithoutParameters(uri).ends_with(".parquet")) return ParquetReader::Open(uri, columns);
  return JsonlReader::Open(uri);
}

}  // namespace temper
