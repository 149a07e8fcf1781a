// SPDX-License-Identifier: Apache-2.0
#include "common/storage/local_copy.h"

#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/failure.h"
#include "common/storage/object_store.h"

namespace temper {
namespace {

constexpr int64_t kPiece = 64 << 20;

absl::Status CopyObject(const ObjectStore& from, const std::string& path, ObjectStore& to) {
  const auto reader = from.OpenForRead(path);
  if (!reader.ok()) return reader.status();
  const auto writer = to.Create(path);
  if (!writer.ok()) return writer.status();
  for (int64_t offset = 0; offset < (*reader)->size(); offset += kPiece) {
    const auto bytes = (*reader)->ReadAt(offset, std::min(kPiece, (*reader)->size() - offset));
    if (!bytes.ok()) return bytes.status();
    if (absl::Status status = (*writer)->Write(*bytes); !status.ok()) return status;
  }
  return (*writer)->Close();
}

absl::Status CheckSpace(const std::vector<ObjectInfo>& objects, const std::string& uri,
                        const std::filesystem::path& directory) {
  int64_t size = 0;
  for (const ObjectInfo& object : objects) size += object.size;
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(directory, error);
  if (error || static_cast<int64_t>(space.available) >= size) return absl::OkStatus();
  return WithCause(
      absl::ResourceExhaustedError(absl::StrFormat(
          "a copy of %s takes %.1f GB, %s has %.1f GB left: free some space or set TMPDIR to another place", uri,
          1e-9 * size, directory.string(), 1e-9 * space.available)),
      FailureCause::kStorage);
}

}  // namespace

absl::StatusOr<LocalCopy> LocalCopy::Of(std::string_view uri) {
  const auto store = ObjectStore::Open(uri);
  if (!store.ok()) return store.status();
  LocalCopy copy;
  if (const auto local = (*store)->LocalPath("")) {
    copy.path_ = *local;
    return copy;
  }
  const auto objects = (*store)->List("");
  if (!objects.ok()) return objects.status();
  if (objects->empty()) return absl::NotFoundError(absl::StrCat("there is nothing at ", (*store)->uri()));
  std::string name = (std::filesystem::temp_directory_path() / "temper-copy-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {
    return WithCause(absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", name)), FailureCause::kStorage);
  }
  copy.path_ = name;
  copy.copied_ = true;
  if (absl::Status space = CheckSpace(*objects, (*store)->uri(), name); !space.ok()) return space;
  const auto here = ObjectStore::Open(name);
  if (!here.ok()) return here.status();
  for (const ObjectInfo& object : *objects) {
    if (absl::Status status = CopyObject(**store, object.path, **here); !status.ok()) return status;
  }
  return copy;
}

LocalCopy::LocalCopy(LocalCopy&& other) noexcept
    : path_(std::exchange(other.path_, "")), copied_(std::exchange(other.copied_, false)) {}

LocalCopy& LocalCopy::operator=(LocalCopy&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(copied_, other.copied_);
  return *this;
}

LocalCopy::~LocalCopy() {
  std::error_code ignored;
  if (copied_) std::filesystem::remove_all(path_, ignored);
}

}  // namespace temper
