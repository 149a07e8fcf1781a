// SPDX-License-Identifier: Apache-2.0
#include "client/partial_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

constexpr size_t kReadBlock = 1 << 20;

absl::Status SystemError(const std::string& path, const char* what, int error_number) {
  const std::string message = absl::StrCat(path, ": ", what, ": ", std::strerror(error_number));
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(absl::StrCat(message,
                                                       "; make room and run the same command again, it goes on "
                                                       "where it stopped"));
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOENT:
      return absl::NotFoundError(message);
    default:
      return absl::InternalError(message);
  }
}

// Feeds what can be read from `descriptor` to the digest; the number of bytes.
absl::StatusOr<int64_t> DigestAll(const std::string& path, int descriptor, Sha256& digest) {
  std::vector<char> block(kReadBlock);
  int64_t total = 0;
  for (;;) {
    const ssize_t count = ::read(descriptor, block.data(), block.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError(path, "can't be read", errno);
    if (count == 0) return total;
    digest.Update(std::string_view(block.data(), static_cast<size_t>(count)));
    total += count;
  }
}

}  // namespace

absl::StatusOr<std::string> FileSha256(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return SystemError(path, "can't be read", errno);
  Sha256 digest;
  const auto size = DigestAll(path, descriptor, digest);
  ::close(descriptor);
  if (!size.ok()) return size.status();
  return digest.Hex();
}

PartialFile::PartialFile(std::string path, int descriptor)
    : path_(std::move(path)), partial_path_(path_ + ".part"), descriptor_(descriptor) {}

PartialFile::PartialFile(PartialFile&& other) noexcept
    : path_(std::move(other.path_)),
      partial_path_(std::move(other.partial_path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      written_(other.written_),
      digest_(std::move(other.digest_)) {}

PartialFile::~PartialFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

absl::Status PartialFile::Error(const char* what, int error_number) const {
  return SystemError(partial_path_, what, error_number);
}

absl::StatusOr<PartialFile> PartialFile::Open(const std::string& path, int64_t size) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (error) return SystemError(std::filesystem::path(path).parent_path().string(), "can't be created", error.value());
  const std::string partial_path = path + ".part";
  const int descriptor = ::open(partial_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return SystemError(partial_path, "can't be written", errno);
  PartialFile file(path, descriptor);
  const auto present = DigestAll(partial_path, descriptor, file.digest_);
  if (!present.ok()) return present.status();
  file.written_ = *present;
  if (file.written_ > size) {
    if (auto status = file.Restart(); !status.ok()) return status;
  }
  return file;
}

absl::Status PartialFile::Write(std::string_view bytes) {
  digest_.Update(bytes);
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(descriptor_, bytes.data(), bytes.size(), written_);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error("can't be written", errno);
    bytes.remove_prefix(static_cast<size_t>(count));
    written_ += count;
  }
  return absl::OkStatus();
}

absl::Status PartialFile::Restart() {
  if (::ftruncate(descriptor_, 0) != 0) return Error("can't be emptied", errno);
  written_ = 0;
  digest_ = temper::Sha256();
  return absl::OkStatus();
}

absl::Status PartialFile::Commit() {
  if (::fsync(descriptor_) != 0) return Error("can't be flushed to disk", errno);
  if (::close(std::exchange(descriptor_, -1)) != 0) return Error("can't be closed", errno);
  if (::rename(partial_path_.c_str(), path_.c_str()) != 0) return Error("can't be renamed", errno);
  return absl::OkStatus();
}

}  // namespace temper
