// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/digest.h"
#include "common/storage/object_store.h"

namespace temper {

// The name of the object whose existence says that a directory is complete.
inline constexpr std::string_view kManifestName = "manifest.json";

struct ManifestFile {
  std::string path;    // relative to the published directory
  int64_t size = 0;    // bytes
  std::string sha256;  // lower-case hex
};

// What a published directory holds: every file but the manifest itself.
struct Manifest {
  std::string job;
  int32_t epoch = 0;
  std::vector<ManifestFile> files;  // sorted by path

  int64_t total_size() const;
};

// The text of a manifest, which `name` stands for in messages. DATA_LOSS when it is malformed or of a format that this
// build does not know. Sizes are at least 0, and so is their sum; paths and digests may be any texts.
absl::StatusOr<Manifest> ParseManifest(std::string_view text, const std::string& name);

// The manifest of a published directory. NOT_FOUND when there is none, that is when the directory was never committed;
// DATA_LOSS as above.
absl::StatusOr<Manifest> ReadManifest(const ObjectStore& store, std::string_view directory);
absl::StatusOr<Manifest> ReadManifest(std::string_view uri, StorageOptions options = {});

// Reads every file that the manifest names and compares size and digest. DATA_LOSS, naming the first file that is
// missing or damaged.
absl::Status VerifyFiles(const ObjectStore& store, std::string_view directory, const Manifest& manifest);

// Removes a published directory, its manifest first, so that nobody takes what is left for complete. OK when there is
// none.
absl::Status Unpublish(ObjectStore& store, std::string_view directory);

class Publication;

// One file of a publication while it is written. It belongs to the publication once Close() returned OK.
class PublishedFile {
 public:
  absl::Status Write(std::string_view bytes);
  absl::Status Close();

 private:
  friend class Publication;
  PublishedFile(Publication* publication, std::string path, std::unique_ptr<ObjectWriter> writer);

  Publication* publication_;
  std::string path_;
  std::unique_ptr<ObjectWriter> writer_;
  Sha256 digest_;
  int64_t size_ = 0;
};

// Publishes a directory whole or not at all: files are written below a directory that nobody else writes to, each with
// its size and SHA-256, and manifest.json is written last. That write is the commit; who reads must look for the
// manifest first. A publication that is destroyed without a commit removes everything that it wrote.
//
// The store must outlive the publication. One thread at a time.
class Publication {
 public:
  // `directory` is relative to the store's root; names carry the gang's epoch, so no other process has the same.
  // ALREADY_EXISTS when anything is there.
  static absl::StatusOr<std::unique_ptr<Publication>> Begin(ObjectStore& store, std::string directory, std::string job,
                                                            int32_t epoch);
  // A part in a publication that another process has begun: what is written here belongs to it once it includes the
  // manifest()'s files. A part neither commits nor removes anything.
  static std::unique_ptr<Publication> Join(ObjectStore& store, std::string directory, std::string job, int32_t epoch);
  ~Publication();
  Publication(const Publication&) = delete;
  Publication& operator=(const Publication&) = delete;

  // `path` is relative to the directory. Files are closed before the commit and before the publication goes.
  absl::StatusOr<std::unique_ptr<PublishedFile>> Create(std::string_view path);
  absl::Status Write(std::string_view path, std::string_view bytes);

  // Files that others wrote into it, which are closed.
  void Include(const std::vector<ManifestFile>& files);

  // FAILED_PRECONDITION when a file is still open, and of a part.
  absl::Status Commit();
  // Removes everything, those of others too; called by the destructor. Returns what could not be removed.
  absl::Status Abort();

  // What was closed so far. The files can be read from store() before the commit.
  const Manifest& manifest() const { return manifest_; }
  const ObjectStore& store() const { return store_; }
  const std::string& directory() const { return directory_; }
  std::string uri() const { return store_.UriOf(directory_); }

 private:
  friend class PublishedFile;
  Publication(ObjectStore& store, std::string directory, std::string job, int32_t epoch);

  ObjectStore& store_;
  std::string directory_;
  Manifest manifest_;
  std::vector<std::string> open_;  // paths that were created and not closed
  bool ended_ = false;
  bool part_ = false;
};

// A folder of a publication, for those who write a part of it without knowing where it goes. The publication must
// outlive it.
class PublishedFolder {
 public:
  // `path` is relative to the publication; empty: all of it.
  PublishedFolder(Publication& publication, std::string path = "")  // NOLINT: a publication is a folder
      : publication_(publication), path_(std::move(path)) {}

  absl::StatusOr<std::unique_ptr<PublishedFile>> Create(std::string_view path);
  absl::Status Write(std::string_view path, std::string_view bytes);

 private:
  Publication& publication_;
  std::string path_;
};

}  // namespace temper
