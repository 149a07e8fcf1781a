// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/publication.h"
#include "worker/parallel/process_group.h"

namespace temper {

// A publication that ranks write together: rank 0's, in which the others take part. Each writes files of its own. Every
// rank calls the same and gets the same status; null: this rank is alone. All throw CollectiveError.

absl::StatusOr<std::unique_ptr<Publication>> BeginTogether(ObjectStore& store, const std::string& directory,
                                                           const std::string& job, int32_t epoch, ProcessGroup* ranks);

// Tells rank 0 of the files that the others have written, with their digests: it may commit then.
void CollectFiles(Publication& publication, ProcessGroup* ranks);

// The same, and rank 0 has committed.
absl::Status CommitTogether(Publication& publication, ProcessGroup* ranks);

}  // namespace temper
