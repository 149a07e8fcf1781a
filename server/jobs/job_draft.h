// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "common/clock.h"
#include "common/storage/job_layout.h"
#include "common/storage/publication.h"
#include "server/jobs/job_machine.h"
#include "server/jobs/job_store.h"
#include "temper/v1/worker_service.pb.h"

namespace temper {

// What a job is to become, before it is kept: a copy of the record, and the events that explain the difference. Pure.
class JobDraft {
 public:
  // `max_log_events` bounds the log events of the job; warnings and errors may go 5 % beyond. What is over the bound is
  // counted, and told once, and again with the figure when the job ends.
  JobDraft(JobRecord record, WallTime now, int64_t max_log_events);

  // Lets job_machine decide, and adds a StateChange if it decided anything that a user can see. `requested_by`: whose
  // call it was; empty where it was nobody's, or the server does not know its callers.
  void Advance(const JobMachineEvent& event, const RetryPolicy& policy, const std::string& requested_by = "");

  // A remark of the server (rank -2).
  void Remark(v1::LogSeverity severity, std::string text);

  // What a rank tells of its work: phase, step, log, checkpoint, export. The end of a rank is the controller's affair.
  void Take(const v1::RankReport& report);

  // A checkpoint that was committed by a gang that did not live to tell.
  void AddCheckpoint(const CheckpointKey& key, const std::string& uri, const Manifest& manifest);

  // The event that creates the job. `requested_by` as above.
  void Begin(const std::string& requested_by);

  const JobLife& life() const { return update_.record.life; }
  v1::JobState state() const { return life().state; }
  // What to keep; positions and the epoch are added by the caller.
  JobUpdate& update() { return update_; }

 private:
  // By the server's clock, not before the newest that is known, not in the future.
  WallTime TimeOf(const v1::RankReport& report) const;
  v1::JobEvent& AddEvent();
  void AddState(const std::string& requested_by);
  void AddLog(v1::LogLine line, WallTime time);
  void AddCheckpoint(const v1::CheckpointCommitted& committed, WallTime time);
  // Copies what job and life have in common into the job.
  void Sync();

  JobUpdate update_;
  const WallTime now_;
  const int64_t max_log_events_;
};

}  // namespace temper
