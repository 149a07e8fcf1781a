// SPDX-License-Identifier: Apache-2.0
#include "common/storage/job_layout.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/storage/publication.h"

namespace temper {
namespace {

constexpr std::string_view kExportPrefix = "export-e";
constexpr std::string_view kReferencePrefix = "reference-e";

template <typename Number>
bool ParseDigits(std::string_view text, Number* value) {
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == text.npos;
  return digits && absl::SimpleAtoi(absl::string_view(text.data(), text.size()), value);
}

// Of a directory that is called `prefix` and the epoch of the gang that wrote it.
std::optional<int32_t> ParseEpoch(std::string_view name, std::string_view prefix) {
  int32_t epoch = 0;
  if (!name.starts_with(prefix) || !ParseDigits(name.substr(prefix.size()), &epoch)) return std::nullopt;
  return epoch;
}

absl::StatusOr<bool> IsCommitted(const ObjectStore& store, const std::string& directory) {
  return store.Exists(absl::StrCat(directory, "/", std::string(kManifestName)));
}

}  // namespace

std::string CheckpointsDirectory(std::string_view job_id) { return absl::StrCat(std::string(job_id), "/checkpoints"); }

std::string CheckpointDirectory(std::string_view job_id, CheckpointKey key) {
  return absl::StrFormat("%s/step-%08d-e%04d", CheckpointsDirectory(job_id), key.step, key.epoch);
}

std::optional<CheckpointKey> ParseCheckpointName(std::string_view name) {
  constexpr std::string_view kPrefix = "step-";
  const size_t dash = name.rfind("-e");
  CheckpointKey key;
  if (!name.starts_with(kPrefix) || dash == name.npos || dash < kPrefix.size()) return std::nullopt;
  if (!ParseDigits(name.substr(kPrefix.size(), dash - kPrefix.size()), &key.step)) return std::nullopt;
  if (!ParseDigits(name.substr(dash + 2), &key.epoch)) return std::nullopt;
  return key;
}

std::string ExportDirectory(std::string_view job_id, int32_t epoch) {
  return absl::StrFormat("%s/%s%04d", std::string(job_id), std::string(kExportPrefix), epoch);
}

std::string ReferenceDirectory(std::string_view job_id, int32_t epoch) {
  return absl::StrFormat("%s/%s%04d", std::string(job_id), std::string(kReferencePrefix), epoch);
}

std::string ProfilePath(std::string_view job_id, int32_t epoch, int64_t first_step, int64_t last_step) {
  return absl::StrFormat("%s/profile-e%04d/steps-%d-%d.json", std::string(job_id), epoch, first_step, last_step);
}

std::string WriteProbe(std::string_view job_id, int32_t epoch) {
  return absl::StrFormat("%s/.write-check-e%04d", std::string(job_id), epoch);
}

absl::StatusOr<std::vector<CheckpointKey>> ListCommittedCheckpoints(const ObjectStore& store, std::string_view job_id) {
  const auto names = store.ListDirectories(CheckpointsDirectory(job_id));
  if (!names.ok()) return names.status();
  std::vector<CheckpointKey> keys;
  for (const std::string& name : *names) {
    const auto key = ParseCheckpointName(name);
    if (!key) continue;
    const auto committed = IsCommitted(store, CheckpointDirectory(job_id, *key));
    if (!committed.ok()) return committed.status();
    if (*committed) keys.push_back(*key);
  }
  std::sort(keys.rbegin(), keys.rend());
  return keys;
}

absl::StatusOr<std::vector<int32_t>> ListCommittedReferences(const ObjectStore& store, std::string_view job_id) {
  const auto names = store.ListDirectories(job_id);
  if (!names.ok()) return names.status();
  std::vector<int32_t> epochs;
  for (const std::string& name : *names) {
    const auto epoch = ParseEpoch(name, kReferencePrefix);
    if (!epoch) continue;
    const auto committed = IsCommitted(store, ReferenceDirectory(job_id, *epoch));
    if (!committed.ok()) return committed.status();
    if (*committed) epochs.push_back(*epoch);
  }
  std::sort(epochs.rbegin(), epochs.rend());
  return epochs;
}

absl::Status RemoveUncommitted(ObjectStore& store, std::string_view job_id, int32_t last_dead_epoch) {
  const std::string job(job_id);
  std::vector<std::string> candidates;
  const auto checkpoints = store.ListDirectories(CheckpointsDirectory(job_id));
  if (!checkpoints.ok()) return checkpoints.status();
  for (const std::string& name : *checkpoints) {
    const auto key = ParseCheckpointName(name);
    if (key && key->epoch <= last_dead_epoch) candidates.push_back(CheckpointDirectory(job_id, *key));
  }
  const auto others = store.ListDirectories(job);
  if (!others.ok()) return others.status();
  for (const std::string& name : *others) {
    for (const std::string_view prefix : {kExportPrefix, kReferencePrefix}) {
      const auto epoch = ParseEpoch(name, prefix);
      if (epoch && *epoch <= last_dead_epoch) candidates.push_back(absl::StrCat(job, "/", name));
    }
  }
  for (const std::string& directory : candidates) {
    const auto committed = IsCommitted(store, directory);
    if (!committed.ok()) return committed.status();
    if (*committed) continue;
    if (absl::Status status = store.DeleteDirectory(directory); !status.ok()) return status;
  }
  return store.Delete(WriteProbe(job_id, last_dead_epoch));
}

absl::Status RemoveOtherExports(ObjectStore& store, std::string_view job_id, int32_t kept_epoch) {
  const auto names = store.ListDirectories(job_id);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const auto epoch = ParseEpoch(name, kExportPrefix);
    if (!epoch || *epoch == kept_epoch) continue;
    if (absl::Status status = Unpublish(store, ExportDirectory(job_id, *epoch)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace temper
