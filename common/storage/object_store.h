// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace arrow {
class Status;
}  // namespace arrow
namespace arrow::fs {
class FileSystem;
struct FileInfo;
}  // namespace arrow::fs
namespace arrow::io {
class OutputStream;
class RandomAccessFile;
}  // namespace arrow::io

namespace temper {

struct RemotePlace;

struct ObjectInfo {
  std::string path;  // relative to the store's root
  int64_t size = 0;
};

// For a process that others wait for: what it can't do now, it tries again later.
inline constexpr std::chrono::milliseconds kShortStorageDeadline = std::chrono::seconds(10);

struct StorageOptions {
  // How long a request to a remote store is repeated after its first failure. Local storage is not waited for.
  std::chrono::milliseconds deadline = std::chrono::minutes(2);
};

// The URI with the commit in the place of the revision of hf:// (common/storage/hub.h), so that whoever opens it reads
// the same. All others stay as they are, and those that name a commit. Errors as ObjectStore::Open() has them.
absl::StatusOr<std::string> PinnedUri(std::string_view uri, StorageOptions options = {});

// A sequential stream into one new object. The object appears, whole and durable, when Close() returns OK, and not at
// all otherwise: a writer that is destroyed before that leaves nothing behind. (A store that can't be reached then, or
// a process that is killed, leaves parts of an upload that nobody sees; docs/OPERATIONS.md has the bucket's rule that
// removes them.) Large objects go to S3 in parts, several at a time, while Write() takes more, until 160 MiB of the
// process's uploads wait in memory. One thread at a time.
class ObjectWriter {
 public:
  ~ObjectWriter();
  ObjectWriter(const ObjectWriter&) = delete;
  ObjectWriter& operator=(const ObjectWriter&) = delete;

  absl::Status Write(std::string_view bytes);
  absl::Status Close();

 private:
  friend class ObjectStore;
  ObjectWriter(std::shared_ptr<arrow::io::OutputStream> stream, std::string path, std::string display);

  std::shared_ptr<arrow::io::OutputStream> stream_;  // null once closed
  std::string path_;                                 // on the file system; empty when not a local file
  std::string partial_path_;                         // where a local file grows until it is whole
  std::string display_;                              // for messages
};

// Ranged reads of one object. From a remote store a long range is read in several requests at a time. Where the store
// says the object's SHA-256 (hf://), it is compared once the object was read from its beginning to its end, piece after
// piece. Any thread.
class ObjectReader {
 public:
  ~ObjectReader();
  ObjectReader(const ObjectReader&) = delete;
  ObjectReader& operator=(const ObjectReader&) = delete;

  int64_t size() const { return size_; }
  // Exactly the bytes [offset, offset + length). OUT_OF_RANGE when the object ends before that, DATA_LOSS when it
  // became shorter or its digest is wrong.
  absl::StatusOr<std::string> ReadAt(int64_t offset, int64_t length) const;
  // The same, to `out`.
  absl::Status ReadAt(int64_t offset, int64_t length, char* out) const;

 private:
  friend class ObjectStore;
  struct Check;
  ObjectReader(std::shared_ptr<arrow::io::RandomAccessFile> file, int64_t size, std::string display, bool local,
               const std::string& sha256);
  absl::Status CheckDigest(int64_t offset, std::string_view bytes) const;

  std::shared_ptr<arrow::io::RandomAccessFile> file_;
  int64_t size_;
  std::string display_;
  bool local_;
  std::unique_ptr<Check> check_;  // where the store says what it should be
};

// A directory of objects, on a local disk, in a bucket or in a repository of a hub. Paths are relative to the root,
// with
// '/' between components; a path that is absolute, empty or has a component "." or ".." is INVALID_ARGUMENT, so a path
// from a client is safe to pass on. Any thread.
//
// Errors name the object and carry a FailureCause (common/failure.h):
//   NOT_FOUND            no such object
//   PERMISSION_DENIED    not readable or writable by this process, or wrong credentials;    (user input)
//                        writing to a hub
//   FAILED_PRECONDITION  a file where a directory must be, or the reverse; no such bucket,  (user input)
//                        container, repository or revision
//   RESOURCE_EXHAUSTED   disk or quota full, with the system's own text                     (storage)
//   UNAVAILABLE          any other failure to read or write                                 (storage)
//   DATA_LOSS            what was read is not what the store says it is                     (storage)
class ObjectStore {
 public:
  // `uri`: common/storage/storage_uri.h. The directory need not exist yet, the bucket has to when it is used. hf:// is
  // only read, and its revision is looked up here: errors as reading has them. INVALID_ARGUMENT for a malformed URI,
  // UNIMPLEMENTED for another scheme.
  static absl::StatusOr<std::unique_ptr<ObjectStore>> Open(std::string_view uri, StorageOptions options = {});
  ~ObjectStore();

  // As it was opened, as a URI without a trailing slash; of hf:// with the commit that it was opened at.
  const std::string& uri() const { return uri_; }
  // The URI of an object or directory.
  std::string UriOf(std::string_view path) const;

  // Directories on the way are created. An object that exists is replaced when the writer is closed.
  absl::StatusOr<std::unique_ptr<ObjectWriter>> Create(std::string_view path);
  absl::Status Write(std::string_view path, std::string_view bytes);

  absl::StatusOr<std::unique_ptr<ObjectReader>> OpenForRead(std::string_view path) const;
  // The whole object. FAILED_PRECONDITION when it is larger than `max_size`.
  absl::StatusOr<std::string> Read(std::string_view path, int64_t max_size = 64 << 20) const;

  // Objects below a directory ("" is the root), at any depth, sorted by path. Empty when there is no such directory.
  absl::StatusOr<std::vector<ObjectInfo>> List(std::string_view directory) const;
  // Names of the directories directly below one, sorted. Empty when there is no such directory.
  absl::StatusOr<std::vector<std::string>> ListDirectories(std::string_view directory) const;
  absl::StatusOr<bool> Exists(std::string_view path) const;
  // Whether something lies below the path, which then is no object.
  absl::StatusOr<bool> IsDirectory(std::string_view path) const;
  // Gives an object another path, at once and durably; what was there is replaced. NOT_FOUND: there is no object. A
  // remote store copies it, and for a moment has both.
  absl::Status Move(std::string_view from, std::string_view to);
  // OK when there is none.
  absl::Status Delete(std::string_view path);
  // Removes a directory and everything below it. OK when there is none.
  absl::Status DeleteDirectory(std::string_view directory);

  // Finds out now what a later write to the directory would run into, by writing and removing a small object.
  absl::Status CheckWritable(std::string_view directory);

  // Where an object or directory is on this machine; absent for remote stores.
  std::optional<std::string> LocalPath(std::string_view path) const;

 private:
  ObjectStore(RemotePlace place, bool read_only);
  absl::Status CheckCanWrite() const;
  absl::StatusOr<std::string> FullPath(std::string_view path) const;
  std::string Display(std::string_view path) const;
  absl::Status CheckBucket() const;
  absl::StatusOr<arrow::fs::FileInfo> InfoOf(std::string_view path) const;
  absl::StatusOr<std::vector<arrow::fs::FileInfo>> Select(std::string_view directory, bool recursive) const;

  std::shared_ptr<arrow::fs::FileSystem> file_system_;
  std::string root_;  // in the file system's own notation, no trailing slash
  std::string uri_;
  std::string endpoint_;  // of a remote store
  bool local_;
  bool read_only_;
  mutable std::atomic<bool> bucket_seen_ = false;
};

}  // namespace temper
