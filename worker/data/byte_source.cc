// SPDX-License-Identifier: Apache-2.0
#include "worker/data/byte_source.h"

#include <arrow/result.h>
#include <arrow/util/compression.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/storage/object_store.h"
#include "common/storage/storage_uri.h"

namespace temper {
namespace {

constexpr int64_t kPieceSize = 4 << 20;
constexpr int64_t kCompressedPieceSize = 1 << 20;

}  // namespace

ByteSource::ByteSource(std::unique_ptr<ObjectReader> file, std::string uri)
    : file_(std::move(file)), uri_(std::move(uri)) {}
ByteSource::ByteSource(ByteSource&&) = default;
ByteSource::~ByteSource() = default;

absl::StatusOr<ByteSource> ByteSource::Open(std::unique_ptr<ObjectReader> file, std::string_view uri) {
  ByteSource source(std::move(file), std::string(uri));
  arrow::Compression::type type = arrow::Compression::UNCOMPRESSED;
  if (WithoutParameters(uri).ends_with(".gz")) type = arrow::Compression::GZIP;
  if (WithoutParameters(uri).ends_with(".zst")) type = arrow::Compression::ZSTD;
  if (type == arrow::Compression::UNCOMPRESSED) return source;
  const auto codec = arrow::util::Codec::Create(type);
  if (!codec.ok()) return absl::InternalError(codec.status().message());
  const auto decompressor = (*codec)->MakeDecompressor();
  if (!decompressor.ok()) return absl::InternalError(decompressor.status().message());
  source.decompressor_ = *decompressor;
  return source;
}

absl::Status ByteSource::Damaged(std::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(uri_, std::string(what), ". Write it again, or get it again"));
}

double ByteSource::fraction_read() const {
  return file_->size() == 0 ? 1.0 : static_cast<double>(offset_) / static_cast<double>(file_->size());
}

absl::StatusOr<std::string> ByteSource::NextInFile() {
  const int64_t piece = decompressor_ == nullptr ? kPieceSize : kCompressedPieceSize;
  const int64_t length = std::min(piece, file_->size() - offset_);
  if (length <= 0) return std::string();
  absl::StatusOr<std::string> bytes = file_->ReadAt(offset_, length);
  if (bytes.ok()) offset_ += length;
  return bytes;
}

absl::StatusOr<std::string> ByteSource::Next() {
  if (decompressor_ == nullptr) return NextInFile();
  std::string output(kPieceSize, '\0');
  while (true) {
    if (input_begin_ == input_.size()) {
      absl::StatusOr<std::string> more = NextInFile();
      if (!more.ok()) return more.status();
      input_ = *std::move(more);
      input_begin_ = 0;
    }
    const bool at_end = input_.empty();
    if (at_end && !within_) return std::string();
    if (decompressor_->IsFinished()) {
      // Another member: files that were put together with cat.
      if (const arrow::Status reset = decompressor_->Reset(); !reset.ok()) return absl::InternalError(reset.message());
    }
    const auto result = decompressor_->Decompress(
        static_cast<int64_t>(input_.size() - input_begin_), reinterpret_cast<const uint8_t*>(&input_[input_begin_]),
        static_cast<int64_t>(output.size()), reinterpret_cast<uint8_t*>(output.data()));
    if (!result.ok()) return Damaged(absl::StrCat(" is damaged: ", result.status().message()));
    input_begin_ += static_cast<size_t>(result->bytes_read);
    within_ = !decompressor_->IsFinished();
    if (result->bytes_written > 0) {
      output.resize(static_cast<size_t>(result->bytes_written));
      return output;
    }
    if (at_end && within_) return Damaged(" ends in the middle of its compressed data: it was cut off");
    if (result->bytes_read == 0 && !at_end && within_) return Damaged(" is damaged");
  }
}

}  // namespace temper
