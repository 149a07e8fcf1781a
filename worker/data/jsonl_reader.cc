// SPDX-License-Identifier: Apache-2.0
#include "worker/data/jsonl_reader.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/storage/object_store.h"
#include "worker/data/trim.h"

namespace temper {
namespace {

constexpr size_t kLongestLine = size_t{256} << 20;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

}  // namespace

JsonlReader::JsonlReader(ByteSource bytes, std::string_view uri)
    : bytes_(std::move(bytes)), where_(absl::StrCat(std::string(uri), ", line ")) {}

absl::StatusOr<std::unique_ptr<RecordReader>> JsonlReader::Open(std::string_view uri) {
  absl::StatusOr<std::unique_ptr<ObjectReader>> file = OpenDataFile(uri);
  if (!file.ok()) return file.status();
  absl::StatusOr<ByteSource> bytes = ByteSource::Open(*std::move(file), uri);
  if (!bytes.ok()) return bytes.status();
  return std::unique_ptr<RecordReader>(new JsonlReader(*std::move(bytes), uri));
}

double JsonlReader::fraction_read() const {
  if (buffer_.empty()) return bytes_.fraction_read();
  const double given = static_cast<double>(begin_) / static_cast<double>(buffer_.size());
  return read_before_ + (bytes_.fraction_read() - read_before_) * given;
}

absl::StatusOr<bool> JsonlReader::Fill() {
  const double read_before = fraction_read();
  const absl::StatusOr<std::string> bytes = bytes_.Next();
  if (!bytes.ok()) return bytes.status();
  if (bytes->empty()) return false;
  read_before_ = read_before;
  buffer_.erase(0, begin_);
  begin_ = 0;
  buffer_ += *bytes;
  return true;
}

absl::StatusOr<std::optional<Record>> JsonlReader::Next() {
  size_t searched = begin_;
  while (true) {
    const size_t newline = buffer_.find('\n', searched);
    if (newline == std::string::npos) {
      searched = buffer_.size() - begin_;  // as it will be after Fill
      if (searched > kLongestLine) {
        return absl::InvalidArgumentError(absl::StrCat(
            where_, line_number_ + 1, ": the line is longer than 256 MiB. JSONL has one sample a line: split it"));
      }
      absl::StatusOr<bool> filled = Fill();
      if (!filled.ok()) return filled.status();
      if (*filled) continue;
      if (begin_ == buffer_.size()) return std::nullopt;
      searched = begin_;
    }
    const size_t end = newline == std::string::npos ? buffer_.size() : newline;
    std::string_view text(buffer_.data() + begin_, end - begin_);
    begin_ = newline == std::string::npos ? end : newline + 1;
    searched = begin_;
    ++line_number_;
    if (line_number_ == 1 && text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    text = Trim(text);
    if (!text.empty()) return Record{std::string(text), line_number_};
  }
}

}  // namespace temper
