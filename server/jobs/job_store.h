// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/job_layout.h"
#include "server/jobs/data_directory.h"
#include "server/jobs/job_machine.h"
#include "server/jobs/wal_checkpointer.h"
#include "server/sqlite/sqlite.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

// A job as it is kept.
struct JobRecord {
  std::string id;
  // As clients see it, `last_sequence` included. The fields that `life` has too are copies of it.
  v1::Job job;
  JobLife life;
  // Empty when the client gave none.
  std::string request_id;
  // Of what the client asked for under request_id.
  std::string request_digest;
  // Log events that are kept, and those that were not because there were too many.
  int64_t log_events = 0;
  int64_t dropped_log_events = 0;
};

// One launch of a job.
struct EpochRecord {
  std::string job_id;
  int32_t epoch = 0;
  WallTime launch_time;
  std::string run_dir;
  // SHA-256 of the worker's token.
  std::string token_hash;
  // What the launcher gave; empty until it did.
  std::string launcher_handle;
  // Node by node, of the one that is attached, or was; empty before.
  std::vector<std::string> incarnations = {""};
  // URIs of the job's own checkpoints, newest first: where the gang shall go on from.
  std::vector<std::string> resume_from;

  // Whether any of its nodes has attached, or all of them.
  bool AnyHeard() const;
  bool AllHeard() const;
};

// The newest report of a rank that is kept.
struct ReportPosition {
  int32_t epoch = 0;
  int32_t rank = 0;
  int64_t sequence = 0;
};

// What one call changes, all of it or nothing. The record replaces what was there. Steps are taken from the events.
struct JobUpdate {
  JobRecord record;
  std::optional<EpochRecord> epoch;
  std::vector<v1::JobEvent> events;  // numbered by the caller
  std::vector<ReportPosition> positions;
  std::vector<v1::Checkpoint> checkpoints;         // new in the index, or replaced
  std::vector<CheckpointKey> removed_checkpoints;  // no longer in the index
};

// Which jobs are listed. What is empty does not count.
struct JobFilter {
  std::vector<v1::JobState> states;  // one of them
  std::string owner;
  std::map<std::string, std::string> labels;  // all of them
};

// A page of jobs, newest first.
struct JobPage {
  std::vector<v1::Job> jobs;
  std::string next_page_token;  // empty on the last page
};

// Everything that the server must not forget, in SQLite (DATA_DIR/temper.db). What a method has returned OK for is on
// the disk. One process at a time: DATA_DIR/LOCK is held while the store lives. Any thread.
//
// Every method may also fail with UNAVAILABLE (disk full, I/O error), with cause STORAGE: nothing has changed then.
class JobStore {
 public:
  // Creates the directory and the database when missing, and brings an older schema up to date.
  //
  // FAILED_PRECONDITION: another process holds the directory (the message names its pid), or the database was written
  // by a newer temper. PERMISSION_DENIED, UNAVAILABLE: the directory can't be used. DATA_LOSS: not a database.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::filesystem::path& data_dir);
  ~JobStore();
  JobStore(const JobStore&) = delete;
  JobStore& operator=(const JobStore&) = delete;

  // ALREADY_EXISTS: a job of this id, or of this request_id.
  absl::Status Create(const JobUpdate& update);
  // NOT_FOUND: no such job.
  absl::Status Update(const JobUpdate& update);
  // All of them or none, for the price of one flush of the disk.
  absl::Status Update(std::span<const JobUpdate* const> updates);

  // NOT_FOUND when there is none.
  absl::StatusOr<JobRecord> Get(const std::string& id) const;
  absl::StatusOr<JobRecord> FindByRequestId(const std::string& request_id) const;
  absl::StatusOr<EpochRecord> GetEpoch(const std::string& id, int32_t epoch) const;

  // All jobs that have not ended, oldest first.
  absl::StatusOr<std::vector<JobRecord>> Unfinished() const;

  // How many jobs are in each state.
  absl::StatusOr<std::map<v1::JobState, int64_t>> CountByState() const;

  // Newest first. INVALID_ARGUMENT: `page_token` is not from an earlier page with the same filter.
  absl::StatusOr<JobPage> List(const JobFilter& filter, int page_size, const std::string& page_token) const;

  // Events with a sequence over `after_sequence`, in order, at most `limit`.
  absl::StatusOr<std::vector<v1::JobEvent>> Events(const std::string& id, int64_t after_sequence, int limit) const;

  // Steps of the job in [first, last], at most `max_points` of them (at least 2): every n-th, and the newest.
  absl::StatusOr<v1::QueryMetricsResponse> Metrics(const std::string& id, int64_t first, int64_t last,
                                                   int64_t max_points) const;

  // The index of the job's committed checkpoints, newest first.
  absl::StatusOr<std::vector<v1::Checkpoint>> Checkpoints(const std::string& id) const;

  // Forgets the job and all that belongs to it. OK when there is none.
  absl::Status Delete(const std::string& id);

  // 0 when the rank has reported nothing.
  absl::StatusOr<int64_t> LastReport(const std::string& id, int32_t epoch, int32_t rank) const;

 private:
  JobStore(std::unique_ptr<DataDirectory> directory, std::unique_ptr<Sqlite> writer, std::unique_ptr<Sqlite> reader,
           std::unique_ptr<Sqlite> lister, std::unique_ptr<Sqlite> checkpoints);

  const std::unique_ptr<DataDirectory> directory_;
  // Connections of their own, so that a reader waits for no commit, and nobody for a list of what few jobs match.
  std::mutex write_mutex_;
  const std::unique_ptr<Sqlite> writer_;
  mutable std::mutex read_mutex_;
  const std::unique_ptr<Sqlite> reader_;
  mutable std::mutex list_mutex_;
  const std::unique_ptr<Sqlite> lister_;
  WalCheckpointer checkpointer_;  // last: it uses the writer
};

}  // namespace temper
