// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/training_client.h"
#include "client/transfer_place.h"

namespace temper {

struct DownloadProgress {
  int64_t done_bytes = 0;  // of all files, those that were there before included
  int64_t total_bytes = 0;
  std::string_view path;  // the file that is being read
};

struct DownloadResult {
  int files = 0;
  int64_t bytes = 0;           // of all files
  int64_t received_bytes = 0;  // that came over the network this time
};

// Gives a file's bytes from `offset` on to `take`, whose error ends it. UNAVAILABLE: it is asked again, from where it
// ended.
using ReadArtifactFrom = absl::FunctionRef<absl::Status(const std::string& path, int64_t offset,
                                                        absl::FunctionRef<absl::Status(std::string_view bytes)> take)>;

// Takes a job's export (`parent` is the job), or one of its checkpoints (CheckpointName()), home: every artifact, under
// its own path, into `directory`, which is created when missing.
//
// A file that is there with the right size and SHA-256 is kept; a partial one (NAME.part, from an interrupted download)
// goes on where it ended. A file appears under its name, by an atomic rename, only when it is whole, verified and on
// disk. Streams that break are resumed. The server says which files there are, and sends them, each once it has a place
// for that (client/transfer_place.h); or `read` gets them from elsewhere.
//
// Errors: the server's; FAILED_PRECONDITION when the job has no export (yet); DATA_LOSS when the bytes do not match the
// digest, twice; PERMISSION_DENIED, RESOURCE_EXHAUSTED (disk full) or INTERNAL, with the file's path, when it can't be
// written. What was received is kept for the next try.
absl::StatusOr<DownloadResult> DownloadArtifacts(const TrainingClient& client, std::string_view parent,
                                                 const std::string& directory,
                                                 absl::FunctionRef<void(const DownloadProgress&)> progress,
                                                 WaitingForPlace waiting);
absl::StatusOr<DownloadResult> DownloadArtifacts(const TrainingClient& client, std::string_view parent,
                                                 const std::string& directory,
                                                 absl::FunctionRef<void(const DownloadProgress&)> progress,
                                                 ReadArtifactFrom read);

}  // namespace temper
