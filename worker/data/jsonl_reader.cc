// SPDX-License-Identifier: Apache-2.0
#include "worker/data/jsonl_reader.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "common/storage/object_store.h"
#include "worker/data/trim.h"

namespace temper {
namespace {

constexpr int64_t kReadSize = 4 << 20;
constexpr size_t kLongestLine = size_t{256} << 20;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

}  // namespace

JsonlReader::JsonlReader(std::unique_ptr<ObjectReader> file, std::string uri)
    : file_(std::move(file)), uri_(std::move(uri)) {}
JsonlReader::JsonlReader(JsonlReader&&) = default;
JsonlReader::~JsonlReader() = default;

absl::StatusOr<JsonlReader> JsonlReader::Open(std::string_view uri) {
  const size_t slash = uri.rfind('/');
  if (slash == std::string_view::npos || slash + 1 == uri.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("data.uri \"", std::string(uri),
                     "\" is not the URI of a file. Give file:///path/data.jsonl or /path/data.jsonl"));
  }
  absl::StatusOr<std::unique_ptr<ObjectStore>> directory = ObjectStore::Open(uri.substr(0, std::max<size_t>(slash, 1)));
  if (!directory.ok()) return directory.status();
  absl::StatusOr<std::unique_ptr<ObjectReader>> file = (*directory)->OpenForRead(uri.substr(slash + 1));
  if (absl::IsNotFound(file.status())) {
    return absl::NotFoundError(absl::StrCat("there is no data file ", std::string(uri),
                                            ". Correct data.uri; the path must exist where the worker runs"));
  }
  if (!file.ok()) {
    return WithCause(absl::Status(file.status().code(), absl::StrCat("data.uri must be a JSONL file that can be read: ",
                                                                     file.status().message())),
                     CauseOf(file.status()));
  }
  return JsonlReader(*std::move(file), std::string(uri));
}

std::string JsonlReader::Where(int64_t line) const { return absl::StrCat(uri_, ", line ", line); }

absl::StatusOr<bool> JsonlReader::Fill() {
  const int64_t length = std::min(kReadSize, file_->size() - offset_);
  if (length <= 0) return false;
  absl::StatusOr<std::string> bytes = file_->ReadAt(offset_, length);
  if (!bytes.ok()) return bytes.status();
  offset_ += length;
  buffer_.erase(0, begin_);
  begin_ = 0;
  buffer_ += *bytes;
  return true;
}

absl::StatusOr<std::optional<JsonLine>> JsonlReader::Next() {
  size_t searched = begin_;
  while (true) {
    const size_t newline = buffer_.find('\n', searched);
    if (newline == std::string::npos) {
      searched = buffer_.size() - begin_;  // as it will be after Fill
      if (searched > kLongestLine) {
        return absl::InvalidArgumentError(absl::StrCat(
            Where(line_number_ + 1), ": the line is longer than 256 MiB. JSONL has one sample a line: split it"));
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
    if (!text.empty()) return JsonLine{std::string(text), line_number_};
  }
}

}  // namespace temper
