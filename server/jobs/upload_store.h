// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/digest.h"
#include "common/storage/object_store.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

struct UploadOptions {
  // Files are DIRECTORY/{sha256}/{name}; what is not whole yet is below DIRECTORY/incoming.
  std::filesystem::path directory;
  // The largest file that is taken. 0: none is.
  int64_t max_file_bytes = int64_t{256} << 20;
  // All files together, those that are being received included.
  int64_t max_total_bytes = int64_t{10} << 30;
  // A file that no job reads stays for so long after it was last sent or asked for.
  std::chrono::minutes grace{60};
};

class UploadStore;

// A file that is being received. It is there when Commit() returns OK, and leaves nothing behind otherwise. One thread
// at a time.
class IncomingUpload {
 public:
  ~IncomingUpload();
  IncomingUpload(const IncomingUpload&) = delete;
  IncomingUpload& operator=(const IncomingUpload&) = delete;

  // INVALID_ARGUMENT: more bytes than were announced. RESOURCE_EXHAUSTED, UNAVAILABLE: they can't be written.
  absl::Status Write(std::string_view bytes);
  // INVALID_ARGUMENT: the bytes are not those that were announced.
  absl::StatusOr<v1::Upload> Commit();

 private:
  friend class UploadStore;
  IncomingUpload(UploadStore& store, v1::UploadHeader header, std::string path)
      : store_(store), header_(std::move(header)), path_(std::move(path)) {}

  UploadStore& store_;
  const v1::UploadHeader header_;
  const std::string path_;  // where it grows
  std::unique_ptr<ObjectWriter> writer_;
  Sha256 digest_;
  int64_t written_ = 0;
};

// Files that clients have sent for jobs to read, by content. What was committed is on the disk. Ages are counted from
// the server's start at the earliest, on a clock that nobody sets. Any thread.
class UploadStore {
 public:
  // Creates the directory, and removes what an earlier server was receiving. `clock` must outlive the store.
  static absl::StatusOr<std::unique_ptr<UploadStore>> Open(UploadOptions options, const Clock& clock);
  UploadStore(const UploadStore&) = delete;
  UploadStore& operator=(const UploadStore&) = delete;

  // The file, if it is there. INVALID_ARGUMENT: no header that Begin() would take. NOT_FOUND.
  absl::StatusOr<v1::Upload> Find(const v1::UploadHeader& header);

  // INVALID_ARGUMENT: name, digest or size are none, or the file is too large. RESOURCE_EXHAUSTED: there is no room for
  // it. The store must outlive the upload.
  absl::StatusOr<std::unique_ptr<IncomingUpload>> Begin(const v1::UploadHeader& header);

  // The digest of the uploaded file that a URI in a job names, if it names one.
  static std::string DigestIn(const std::string& uri);

  // Removes files that have had their time and whose digest is not in what `used` returns; it is asked only when there
  // is such a file.
  absl::Status Collect(const std::function<absl::StatusOr<std::set<std::string>>()>& used);

 private:
  friend class IncomingUpload;
  UploadStore(UploadOptions options, const Clock& clock, std::unique_ptr<ObjectStore> files)
      : options_(std::move(options)), clock_(clock), started_(clock.Monotonic()), files_(std::move(files)) {}

  absl::Status CheckHeader(const v1::UploadHeader& header) const;
  absl::Status CheckRoom(int64_t size) const;  // with mutex_ held
  v1::Upload Describe(const v1::UploadHeader& header) const;
  // Moves a whole file to its place.
  absl::StatusOr<v1::Upload> Keep(const v1::UploadHeader& header, const std::string& path);
  void Release(int64_t size);

  const UploadOptions options_;
  const Clock& clock_;
  const MonotonicTime started_;
  const std::unique_ptr<ObjectStore> files_;

  std::mutex mutex_;
  // Guarded by mutex_:
  std::map<std::string, MonotonicTime> touched_;  // by digest; absent: not since the start
  int64_t incoming_bytes_ = 0;                    // announced
  int64_t last_incoming_ = 0;
};

}  // namespace temper
