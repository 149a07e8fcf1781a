// SPDX-License-Identifier: Apache-2.0
#include "common/storage/gcs.h"

#include <arrow/filesystem/gcsfs.h>
#include <arrow/io/interfaces.h>
#include <arrow/util/io_util.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/storage/storage_uri.h"

namespace temper {
namespace {

using arrow::fs::FileInfo;
using arrow::fs::FileType;

// "google::cloud::Status(CODE: … error_info={…})" is all that there is of it, besides an errno for some codes.
std::string TextOf(const arrow::Status& status) {
  constexpr std::string_view kBegin = "google::cloud::Status(", kEnd = " error_info=";
  std::string text = status.message();
  if (text.starts_with(kBegin)) text.erase(0, kBegin.size());
  return text.substr(0, text.find(kEnd));
}

absl::Status FromGcsError(const arrow::Status& status) {
  std::string message = TextOf(status);
  const int error = arrow::internal::ErrnoFromStatus(status);
  if (message.starts_with("UNAVAILABLE")) return StoreIsDown(std::move(message));
  if (error == EACCES || ContainsAny(message, {"OAuth2", "credentials"})) {
    return WrongCredentials(std::move(message),
                            "GOOGLE_APPLICATION_CREDENTIALS where this process runs, and the bucket's permissions");
  }
  if (ContainsAny(message, {"bucket does not exist", "bucket not found"})) return NoSuchBucket(std::move(message));
  if (error == ENOENT) return absl::NotFoundError(message);
  if (ContainsAny(message, {"quota"})) return StoreIsFull(std::move(message));
  return StoreIsDown(std::move(message));
}

arrow::Status Explained(const arrow::Status& status) { return status.ok() ? status : ToArrow(FromGcsError(status)); }
template <typename Value>
arrow::Result<Value> Explained(arrow::Result<Value> result) {
  if (result.ok()) return result;
  return Explained(result.status());
}

// An upload that is not closed is no object, and Google forgets it after a week. But Arrow's stream closes itself when
// it is aborted or destroyed, which would make an object of what was written so far: such a stream lives on. It holds
// less than a MiB.
void KeepForever(std::shared_ptr<arrow::io::OutputStream> stream) {
  static std::mutex mutex;
  static auto* const kept = new std::vector<std::shared_ptr<arrow::io::OutputStream>>;
  std::lock_guard lock(mutex);
  kept->push_back(std::move(stream));
}

class GcsWriter final : public arrow::io::OutputStream {
 public:
  explicit GcsWriter(std::shared_ptr<arrow::io::OutputStream> stream) : stream_(std::move(stream)) {}
  ~GcsWriter() override { (void)Abort(); }

  arrow::Status Write(const void* data, int64_t size) override { return Explained(stream_->Write(data, size)); }
  // Nothing waits in memory.
  arrow::Status Flush() override { return arrow::Status::OK(); }
  arrow::Status Close() override {
    arrow::Status status = Explained(stream_->Close());
    if (status.ok()) stream_ = nullptr;
    (void)Abort();
    return status;
  }
  arrow::Status Abort() override {
    if (stream_ != nullptr) KeepForever(std::move(stream_));
    return arrow::Status::OK();
  }
  arrow::Result<int64_t> Tell() const override { return stream_->Tell(); }
  bool closed() const override { return stream_ == nullptr; }

 private:
  std::shared_ptr<arrow::io::OutputStream> stream_;  // null once closed or aborted
};

class GcsReader final : public RemoteFile {
 public:
  explicit GcsReader(std::shared_ptr<arrow::io::RandomAccessFile> file) : file_(std::move(file)) {}

  arrow::Result<int64_t> GetSize() override { return Explained(file_->GetSize()); }
  arrow::Result<int64_t> ReadAt(int64_t position, int64_t size, void* out) override {
    return Explained(file_->ReadAt(position, size, out));
  }
  using arrow::io::RandomAccessFile::ReadAt;

 private:
  const std::shared_ptr<arrow::io::RandomAccessFile> file_;
};

class GcsFiles final : public RemoteFileSystem {
 public:
  explicit GcsFiles(std::shared_ptr<arrow::fs::GcsFileSystem> files) : files_(std::move(files)) {}

  std::string type_name() const override { return files_->type_name(); }

  arrow::Result<FileInfo> GetFileInfo(const std::string& path) override { return Explained(files_->GetFileInfo(path)); }

  arrow::Result<std::vector<FileInfo>> GetFileInfo(const arrow::fs::FileSelector& selector) override {
    // Not recursive, it finds no directory but those that have an object as their mark, which ours don't.
    arrow::fs::FileSelector everything = selector;
    everything.recursive = true;
    arrow::Result<std::vector<FileInfo>> found = Explained(files_->GetFileInfo(everything));
    if (!found.ok() || selector.recursive) return found;
    return RightIn(selector.base_dir, *found);
  }

  arrow::Status DeleteDir(const std::string& path) override {
    const arrow::Status deleted = files_->DeleteDir(path);
    // What marks the directory is deleted last, and need not have been there.
    arrow::fs::FileSelector below;
    below.base_dir = path;
    below.recursive = true;
    below.allow_not_found = true;
    if (deleted.ok()) return deleted;
    const auto left = files_->GetFileInfo(below);
    return left.ok() && left->empty() ? arrow::Status::OK() : Explained(deleted);
  }

  // The client repeats requests: what is gone may be so by an attempt that seemed to fail.
  arrow::Status DeleteFile(const std::string& path) override {
    const arrow::Status deleted = files_->DeleteFile(path);
    if (deleted.ok() || absl::IsNotFound(FromGcsError(deleted))) return arrow::Status::OK();
    return Explained(deleted);
  }

  arrow::Status Move(const std::string& from, const std::string& to) override {
    arrow::Status copied = Explained(files_->CopyFile(from, to));
    return copied.ok() ? DeleteFile(from) : copied;
  }

  arrow::Result<std::shared_ptr<arrow::io::RandomAccessFile>> OpenInputFile(const FileInfo& info) override {
    auto file = files_->OpenInputFile(info);
    if (!file.ok()) return Explained(file.status());
    return std::make_shared<GcsReader>(*std::move(file));
  }
  using RemoteFileSystem::OpenInputFile;

  arrow::Result<std::shared_ptr<arrow::io::OutputStream>> OpenOutputStream(
      const std::string& path, const std::shared_ptr<const arrow::KeyValueMetadata>& metadata) override {
    auto stream = files_->OpenOutputStream(path, metadata);
    // What an object needs is its bucket.
    if (arrow::internal::ErrnoFromStatus(stream.status()) == ENOENT) {
      return ToArrow(NoSuchBucket(TextOf(stream.status())));
    }
    if (!stream.ok()) return Explained(stream.status());
    return std::make_shared<GcsWriter>(*std::move(stream));
  }

 private:
  static std::vector<FileInfo> RightIn(const std::string& directory, const std::vector<FileInfo>& below) {
    std::vector<FileInfo> right_in;
    std::set<std::string> directories;
    for (const FileInfo& info : below) {
      const size_t slash = info.path().find('/', directory.size() + 1);
      if (slash != std::string::npos) {
        directories.insert(info.path().substr(0, slash));
      } else if (info.type() == FileType::Directory) {
        directories.insert(info.path());
      } else {
        right_in.push_back(info);
      }
    }
    for (const std::string& path : directories) right_in.emplace_back(path, FileType::Directory);
    return right_in;
  }

  const std::shared_ptr<arrow::fs::GcsFileSystem> files_;
};

}  // namespace

absl::StatusOr<RemotePlace> OpenGcs(std::string_view uri, std::chrono::milliseconds deadline) {
  if (HasUserInformation(uri)) return UserInformation("gs://", "GOOGLE_APPLICATION_CREDENTIALS");
  const absl::StatusOr<std::string> root = PathOfRemote(uri);
  if (!root.ok()) return root.status();
  if (root->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(uri), "\" names no bucket: write gs://bucket/path"));
  }
  const auto parameters = ReadParameters(uri);
  if (!parameters.ok()) return parameters.status();
  const std::string at = parameters->empty()
                             ? FirstOfEnvironment({"STORAGE_EMULATOR_HOST", "CLOUD_STORAGE_EMULATOR_ENDPOINT"})
                             : parameters->front().value;
  arrow::fs::GcsOptions options = arrow::fs::GcsOptions::Defaults();
  if (!at.empty()) {
    Endpoint endpoint;
    // The emulators' variables often go without a scheme.
    const bool bare = parameters->empty() && at.find("://") == at.npos;
    if (absl::Status read = ReadEndpoint(uri, bare ? absl::StrCat("http://", at) : at, endpoint); !read.ok()) {
      return read;
    }
    // Requests carry a token that opens everything: it is not for whom a URI names.
    if (endpoint.scheme == "http" || !parameters->empty()) options = arrow::fs::GcsOptions::Anonymous();
    options.scheme = endpoint.scheme;
    options.endpoint_override = endpoint.authority;
  }
  options.retry_limit_seconds = std::chrono::duration<double>(deadline).count();
  arrow::Result<std::shared_ptr<arrow::fs::GcsFileSystem>> files = arrow::fs::GcsFileSystem::Make(options);
  if (!files.ok()) return FromGcsError(files.status());
  return RemotePlace{std::make_shared<GcsFiles>(*files), *root, at.empty() ? "Google Cloud Storage" : at,
                     absl::StrCat("gs://", *root, std::string(ParametersOf(uri)))};
}

}  // namespace temper
