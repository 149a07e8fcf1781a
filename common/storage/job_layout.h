// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/object_store.h"

namespace temper {

// Where a job keeps what, below its output URI. Every path carries the epoch of the gang that writes it, so that a gang
// that is thought dead and wakes up writes where nobody looks.
//
//   JOB/checkpoints/step-00000200-e0003/   weights/ (HF directory or PEFT adapter) · optimizer/ · trainer.json
//   JOB/export-e0003/                      what users take away
//   JOB/reference-e0003/                   what the model said of the data before training
//   (worker/train/reference_pass.h) JOB/profile-e0003/steps-3-5.json       a trace of some steps
//
// The first three are publications (common/storage/publication.h).

struct CheckpointKey {
  int64_t step = 0;
  int32_t epoch = 0;

  // Newest last: by step, then by epoch.
  auto operator<=>(const CheckpointKey&) const = default;
};

std::string CheckpointsDirectory(std::string_view job_id);
std::string CheckpointDirectory(std::string_view job_id, CheckpointKey key);
// Of the last component of such a path; absent for another name.
std::optional<CheckpointKey> ParseCheckpointName(std::string_view name);

std::string ExportDirectory(std::string_view job_id, int32_t epoch);

std::string ReferenceDirectory(std::string_view job_id, int32_t epoch);
std::string ProfilePath(std::string_view job_id, int32_t epoch, int64_t first_step, int64_t last_step);

// A file that a gang writes and removes in order to see whether it could write.
std::string WriteProbe(std::string_view job_id, int32_t epoch);

// The job's committed checkpoints, newest first.
absl::StatusOr<std::vector<CheckpointKey>> ListCommittedCheckpoints(const ObjectStore& store, std::string_view job_id);

// Epochs of the gangs that have committed a reference, newest first.
absl::StatusOr<std::vector<int32_t>> ListCommittedReferences(const ObjectStore& store, std::string_view job_id);

// Removes what dead gangs of the job left half-written: checkpoints, exports and references of epochs up to
// `last_dead_epoch` that were not committed.
absl::Status RemoveUncommitted(ObjectStore& store, std::string_view job_id, int32_t last_dead_epoch);

// Removes the exports of all epochs but `kept_epoch`, committed or not.
absl::Status RemoveOtherExports(ObjectStore& store, std::string_view job_id, int32_t kept_epoch);

}  // namespace temper
