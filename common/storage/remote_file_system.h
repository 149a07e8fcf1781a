// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <arrow/filesystem/filesystem.h>
#include <arrow/io/interfaces.h>
#include <arrow/result.h>
#include <arrow/status.h>

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace temper {

// What is not whole yet grows under a name with this suffix, or in a directory of such a name. Nobody sees it.
inline constexpr char kPartialSuffix[] = ".temper-partial";

// Where a URI of a remote store leads.
struct RemotePlace {
  std::shared_ptr<arrow::fs::FileSystem> file_system;
  std::string root;      // bucket, or bucket/prefix
  std::string endpoint;  // for messages: "http://127.0.0.1:9000" or "Amazon S3"
  std::string uri;       // what leads there again
};

// An error of ours as Arrow's, and back: its code, its message and its FailureCause.
arrow::Status ToArrow(const absl::Status& status);
// Absent for an error that Arrow made.
std::optional<absl::Status> FromOurs(const arrow::Status& status);

// Adds what every store means by some error, with a FailureCause.
absl::Status WrongCredentials(std::string message, std::string_view what_to_check);
absl::Status UserInformation(std::string_view scheme, std::string_view where_instead);
absl::Status NoSuchBucket(std::string message);
absl::Status StoreIsFull(std::string message);
// "It was tried again for a while."
absl::Status StoreIsDown(std::string message);

// The first variable of the environment that is set and not empty; "" when none is.
std::string FirstOfEnvironment(std::initializer_list<const char*> variables);

bool ContainsAny(std::string_view text, std::initializer_list<const char*> words);

// "http://host:1/" → "http" and "host:1"; without a scheme https. INVALID_ARGUMENT for another scheme.
struct Endpoint {
  std::string scheme;
  std::string authority;
};
absl::Status ReadEndpoint(std::string_view uri, std::string_view text, Endpoint& endpoint);

// A file system of which ObjectStore uses a part; the rest is not implemented. Those who read only have nothing else.
class RemoteFileSystem : public arrow::fs::FileSystem {
 public:
  bool Equals(const arrow::fs::FileSystem& other) const override { return this == &other; }
  arrow::Status CreateDir(const std::string& path, bool recursive) override;
  arrow::Status DeleteDir(const std::string& path) override;
  arrow::Status DeleteDirContents(const std::string& path, bool missing_dir_ok) override;
  arrow::Status DeleteRootDirContents() override;
  arrow::Status DeleteFile(const std::string& path) override;
  arrow::Status Move(const std::string& from, const std::string& to) override;
  arrow::Status CopyFile(const std::string& from, const std::string& to) override;
  arrow::Result<std::shared_ptr<arrow::io::InputStream>> OpenInputStream(const std::string& path) override;
  arrow::Result<std::shared_ptr<arrow::io::RandomAccessFile>> OpenInputFile(const std::string& path) override;
  using arrow::fs::FileSystem::OpenInputFile;
  arrow::Result<std::shared_ptr<arrow::io::OutputStream>> OpenOutputStream(
      const std::string& path, const std::shared_ptr<const arrow::KeyValueMetadata>& metadata) override;
  arrow::Result<std::shared_ptr<arrow::io::OutputStream>> OpenAppendStream(
      const std::string& path, const std::shared_ptr<const arrow::KeyValueMetadata>& metadata) override;
};

// An open file of a remote store: ReadAt() is all that ObjectReader uses.
class RemoteFile : public arrow::io::RandomAccessFile {
 public:
  // Of all of it, where the store says it; else "".
  virtual std::string sha256() const { return ""; }

  arrow::Status Close() override;
  bool closed() const override { return closed_; }
  arrow::Result<int64_t> Tell() const override;
  arrow::Status Seek(int64_t position) override;
  arrow::Result<int64_t> Read(int64_t size, void* out) override;
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t size) override;

 private:
  bool closed_ = false;
};

}  // namespace temper
