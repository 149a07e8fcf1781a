// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/data_source.h"
#include "worker/data/record_reader.h"

namespace temper {

// Which records a stream gives: all, those that a split keeps for training, or those that it holds out.
struct RecordSplit {
  enum class Part { kAll, kTraining, kHeldOut };
  Part part = Part::kAll;
  double held_out_share = 0;  // of every source
  uint64_t seed = 0;
};

// A record, and where it comes from.
struct SourceRecord {
  Record record;
  int source = 0;       // index of the DataSource
  int64_t ordinal = 0;  // of the record in its source, held-out ones counted too, from 0
  std::shared_ptr<const std::string> file;

  // "URI, line N", for messages.
  std::string Where() const;
};

// One pass over all records of all sources. Several sources are read side by side, so that all end together and any
// stretch of the stream has of each source what the whole has. The order is a function of the files alone. One thread.
class RecordStream {
 public:
  // Finds the files. Errors as FindDataFiles and OpenRecords have them.
  static absl::StatusOr<RecordStream> Open(const std::vector<DataSource>& sources, const RecordSplit& split);
  RecordStream(RecordStream&&);
  RecordStream& operator=(RecordStream&&);
  ~RecordStream();

  // Absent at the end.
  absl::StatusOr<std::optional<SourceRecord>> Next();

  // The share of all bytes that has been read, 0 to 1.
  double fraction_read() const;

 private:
  class Source;
  RecordStream(std::vector<Source> sources, const RecordSplit& split);

  std::vector<Source> sources_;
  RecordSplit split_;
};

}  // namespace temper
