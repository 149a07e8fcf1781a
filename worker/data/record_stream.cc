// SPDX-License-Identifier: Apache-2.0
#include "worker/data/record_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/storage/object_store.h"
#include "worker/data/data_files.h"
#include "worker/data/shuffle.h"

namespace temper {

std::string SourceRecord::Where() const { return absl::StrCat(*file, record.number); }

class RecordStream::Source {
 public:
  static absl::StatusOr<Source> Open(const DataSource& description) {
    absl::StatusOr<std::vector<std::string>> files = FindDataFiles(description.uri);
    if (!files.ok()) return files.status();
    Source source;
    source.columns_ = description.columns;
    for (std::string& uri : *files) {
      const absl::StatusOr<std::unique_ptr<ObjectReader>> file = OpenDataFile(uri);
      if (!file.ok()) return file.status();
      source.bytes_ += static_cast<double>((*file)->size());
      source.files_.push_back({std::move(uri), static_cast<double>((*file)->size())});
    }
    return source;
  }

  absl::StatusOr<std::optional<SourceRecord>> Next() {
    while (next_file_ < files_.size() || reader_ != nullptr) {
      if (reader_ == nullptr) {
        absl::StatusOr<std::unique_ptr<RecordReader>> reader = OpenRecords(files_[next_file_].uri, columns_);
        if (!reader.ok()) return reader.status();
        reader_ = *std::move(reader);
        where_ = std::make_shared<const std::string>(reader_->where());
        ++next_file_;
      }
      absl::StatusOr<std::optional<Record>> record = reader_->Next();
      if (!record.ok()) return record.status();
      if (record->has_value()) {
        return SourceRecord{.record = **std::move(record), .ordinal = next_ordinal_++, .file = where_};
      }
      bytes_done_ += files_[next_file_ - 1].bytes;
      reader_ = nullptr;
    }
    ended_ = true;
    return std::nullopt;
  }

  bool ended() const { return ended_; }
  double bytes() const { return bytes_; }
  double bytes_read() const {
    return bytes_done_ + (reader_ == nullptr ? 0 : files_[next_file_ - 1].bytes * reader_->fraction_read());
  }
  double fraction_read() const { return ended_ || bytes_ == 0 ? 1.0 : bytes_read() / bytes_; }

 private:
  struct File {
    std::string uri;
    double bytes = 0;
  };

  ColumnNames columns_;
  std::vector<File> files_;
  double bytes_ = 0;       // of all files
  double bytes_done_ = 0;  // of those that were read to their end
  size_t next_file_ = 0;
  std::unique_ptr<RecordReader> reader_;      // of the file before next_file_; null between two files
  std::shared_ptr<const std::string> where_;  // of the reader
  int64_t next_ordinal_ = 0;
  bool ended_ = false;
};

RecordStream::RecordStream(std::vector<Source> sources, const RecordSplit& split)
    : sources_(std::move(sources)), split_(split) {}
RecordStream::RecordStream(RecordStream&&) = default;
RecordStream& RecordStream::operator=(RecordStream&&) = default;
RecordStream::~RecordStream() = default;

absl::StatusOr<RecordStream> RecordStream::Open(const std::vector<DataSource>& sources, const RecordSplit& split) {
  std::vector<Source> opened;
  for (const DataSource& source : sources) {
    absl::StatusOr<Source> one = Source::Open(source);
    if (!one.ok()) return one.status();
    opened.push_back(*std::move(one));
  }
  return RecordStream(std::move(opened), split);
}

absl::StatusOr<std::optional<SourceRecord>> RecordStream::Next() {
  while (true) {
    // Whoever is furthest behind.
    Source* source = nullptr;
    for (Source& candidate : sources_) {
      if (candidate.ended()) continue;
      if (source == nullptr || candidate.fraction_read() < source->fraction_read()) source = &candidate;
    }
    if (source == nullptr) return std::nullopt;
    absl::StatusOr<std::optional<SourceRecord>> record = source->Next();
    if (!record.ok()) return record.status();
    if (!record->has_value()) continue;
    (*record)->source = static_cast<int>(source - sources_.data());
    if (split_.part != RecordSplit::Part::kAll) {
      const double place = UniformHash(split_.seed, (*record)->source, (*record)->ordinal);
      const bool held_out = place < split_.held_out_share;
      if (held_out != (split_.part == RecordSplit::Part::kHeldOut)) continue;
    }
    return record;
  }
}

double RecordStream::fraction_read() const {
  double all = 0, read = 0;
  bool ended = true;
  for (const Source& source : sources_) {
    all += source.bytes();
    read += source.bytes_read();
    ended = ended && source.ended();
  }
  return ended || all == 0 ? 1.0 : read / all;
}

}  // namespace temper
