// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/job_draft.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/counted.h"
#include "common/rpc/timestamp.h"
#include "server/jobs/job_time.h"

namespace temper {
namespace {

// A line that is longer is no line.
constexpr size_t kMaxLineBytes = 16384;

void CutLine(std::string& text) {
  if (text.size() <= kMaxLineBytes) return;
  size_t end = kMaxLineBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  const size_t cut = text.size() - end;
  text.resize(end);
  absl::StrAppend(&text, "... (", cut, " bytes cut)");
}

// Whether a gang that trained has been lost just now, with the step that was under way.
bool IsLost(const JobLife& before, const JobLife& after) {
  if (before.state != v1::JOB_STATE_RUNNING) return false;
  if (after.state != v1::JOB_STATE_STOPPING) return after.state != v1::JOB_STATE_SUCCEEDED;
  return after.ending && after.ending->cause != v1::FAILURE_CAUSE_UNSPECIFIED && !KeepsProgress(after);
}

// Of the newest state, phase or step. A clock that was set back makes nothing older than that.
WallTime NewestTime(const v1::Job& job) { return FromTimestamp(job.time_spent().until()); }

}  // namespace

JobDraft::JobDraft(JobRecord record, WallTime now, int64_t max_log_events)
    : now_(std::max(now, NewestTime(record.job))), max_log_events_(max_log_events) {
  update_.record = std::move(record);
}

v1::JobEvent& JobDraft::AddEvent() {
  v1::Job& job = update_.record.job;
  v1::JobEvent& event = update_.events.emplace_back();
  job.set_last_sequence(job.last_sequence() + 1);
  event.set_sequence(job.last_sequence());
  *event.mutable_time() = ToTimestamp(now_);
  return event;
}

void JobDraft::AddState(const std::string& requested_by) {
  v1::StateChange& change = *AddEvent().mutable_state();
  change.set_state(life().state);
  change.set_reason(life().reason);
  change.set_cause(life().state == v1::JOB_STATE_STOPPING && life().ending ? life().ending->cause : life().cause);
  change.set_epoch(life().epoch);
  change.set_requested_by(requested_by);
}

void JobDraft::Begin(const std::string& requested_by) {
  *update_.record.job.mutable_create_time() = ToTimestamp(now_);
  Sync();
  SpendUntil(update_.record.job, now_);
  AddState(requested_by);
}

void JobDraft::Advance(const JobMachineEvent& event, const RetryPolicy& policy, const std::string& requested_by) {
  JobRecord& record = update_.record;
  const JobLife before = record.life;
  record.life = temper::Advance(before, event, policy, now_);
  if (record.life == before) return;
  v1::Job& job = record.job;
  if (state() != before.state) SpendUntil(job, now_, IsLost(before, life()));
  if (life().epoch != before.epoch) {
    if (!job.has_start_time()) *job.mutable_start_time() = ToTimestamp(now_);
    job.clear_export_uri();
  }
  if (!HasGang(state())) job.clear_phase();
  if (IsFinal(state())) {
    *job.mutable_end_time() = ToTimestamp(now_);
    if (record.dropped_log_events > 0) {
      v1::LogLine& line = *AddEvent().mutable_log();
      line.set_severity(v1::LOG_SEVERITY_WARNING);
      line.set_rank(-2);
      line.set_text(absl::StrCat("dropped ", Counted(record.dropped_log_events, "log line")));
    }
  }
  Sync();
  if (life().state != before.state || life().reason != before.reason) AddState(requested_by);
}

void JobDraft::Remark(v1::LogSeverity severity, std::string text) {
  v1::LogLine line;
  line.set_severity(severity);
  line.set_rank(-2);
  line.set_text(std::move(text));
  AddLog(std::move(line), now_);
}

void JobDraft::AddLog(v1::LogLine line, WallTime time) {
  JobRecord& record = update_.record;
  const bool matters = line.severity() >= v1::LOG_SEVERITY_WARNING;
  const int64_t limit = matters ? max_log_events_ + max_log_events_ / 20 : max_log_events_;
  if (record.log_events >= limit) {
    if (record.dropped_log_events++ > 0) return;
    line.set_severity(v1::LOG_SEVERITY_WARNING);
    line.set_rank(-2);
    line.set_text(absl::StrCat("the log is full (", record.log_events, " lines): further lines are dropped"));
  } else {
    ++record.log_events;
  }
  CutLine(*line.mutable_text());
  v1::JobEvent& event = AddEvent();
  *event.mutable_time() = ToTimestamp(time);
  *event.mutable_log() = std::move(line);
}

void JobDraft::AddCheckpoint(const v1::CheckpointCommitted& committed, WallTime time) {
  v1::Job& job = update_.record.job;
  v1::Checkpoint& entry = update_.checkpoints.emplace_back();
  entry.set_name(absl::StrCat(job.name(), "/checkpoints/", committed.step()));
  entry.set_step(committed.step());
  entry.set_epoch(committed.epoch());
  entry.set_uri(committed.uri());
  entry.set_size_bytes(committed.bytes());
  entry.set_files(committed.files());
  *entry.mutable_commit_time() = ToTimestamp(time);
  job.set_checkpoint_step(committed.step());
  update_.record.life.restarts_since_checkpoint = 0;
  *AddEvent().mutable_checkpoint() = committed;
}

void JobDraft::AddCheckpoint(const CheckpointKey& key, const std::string& uri, const Manifest& manifest) {
  v1::CheckpointCommitted committed;
  committed.set_step(key.step);
  committed.set_epoch(key.epoch);
  committed.set_uri(uri);
  committed.set_bytes(manifest.total_size());
  committed.set_files(static_cast<int32_t>(manifest.files.size()));
  AddCheckpoint(committed, now_);
}

WallTime JobDraft::TimeOf(const v1::RankReport& report) const {
  WallTime time = now_;
  if (report.has_age()) {
    const auto age = std::chrono::seconds(report.age().seconds()) + std::chrono::nanoseconds(report.age().nanos());
    time -= std::chrono::duration_cast<WallTime::duration>(age);
  } else if (report.has_time()) {  // of a node of an earlier version, whose clock may be anything
    time = FromTimestamp(report.time());
  }
  return std::clamp(time, NewestTime(update_.record.job), now_);
}

void JobDraft::Take(const v1::RankReport& report) {
  v1::Job& job = update_.record.job;
  const WallTime time = TimeOf(report);
  switch (report.report_case()) {
    case v1::RankReport::kPhase:
      SpendUntil(job, time);
      job.set_phase(report.phase().phase());
      if (report.phase().total_steps() > 0) job.set_total_steps(report.phase().total_steps());
      *AddEvent().mutable_phase() = report.phase();
      break;
    case v1::RankReport::kStep:
      SpendUntil(job, time);
      SpendStep(job, report.step());
      *job.mutable_latest_step() = report.step();
      job.set_current_step(report.step().step());
      if (report.step().total_steps() > 0) job.set_total_steps(report.step().total_steps());
      *AddEvent().mutable_step() = report.step();
      break;
    case v1::RankReport::kData:
      *job.mutable_data() = report.data();
      *AddEvent().mutable_data() = report.data();
      break;
    case v1::RankReport::kPreflight:
      *job.mutable_preflight() = report.preflight();
      *AddEvent().mutable_preflight() = report.preflight();
      break;
    case v1::RankReport::kBackend:
      *job.mutable_backend() = report.backend();
      *AddEvent().mutable_backend() = report.backend();
      break;
    case v1::RankReport::kVerdict:
      *job.mutable_verdict() = report.verdict();
      *AddEvent().mutable_verdict() = report.verdict();
      break;
    case v1::RankReport::kValidation:
      SpendUntil(job, time);
      SpendValidation(job, report.validation());
      *job.mutable_latest_validation() = report.validation();
      if (report.validation().best()) *job.mutable_best_validation() = report.validation();
      *AddEvent().mutable_validation() = report.validation();
      break;
    case v1::RankReport::kExport:
      job.set_export_uri(report.export_().uri());
      update_.record.life.export_committed = true;
      *AddEvent().mutable_export_() = report.export_();
      break;
    case v1::RankReport::kCheckpoint:
      AddCheckpoint(report.checkpoint(), time);
      break;
    case v1::RankReport::kCheckpointRemoved:
      update_.removed_checkpoints.push_back({report.checkpoint_removed().step(), report.checkpoint_removed().epoch()});
      *AddEvent().mutable_checkpoint_removed() = report.checkpoint_removed();
      break;
    case v1::RankReport::kResumption: {
      v1::Resumption& resumption = *AddEvent().mutable_resumption();
      resumption = report.resumption();
      resumption.set_lost_steps(std::max<int64_t>(0, job.current_step() - resumption.step()));
      job.set_current_step(resumption.step());
      break;
    }
    case v1::RankReport::kLog: {
      v1::LogLine line = report.log();
      line.set_rank(std::max(-1, report.rank()));  // nodes are told apart by their reports only
      AddLog(std::move(line), time);
      return;
    }
    case v1::RankReport::kEnd:
    case v1::RankReport::REPORT_NOT_SET:
      return;
  }
  *update_.events.back().mutable_time() = ToTimestamp(time);
}

void JobDraft::Sync() {
  v1::Job& job = update_.record.job;
  job.set_state(life().state);
  job.set_target(life().target);
  job.set_reason(life().reason);
  job.set_cause(life().cause);
  job.set_epoch(life().epoch);
  job.set_restarts(life().restarts);
}

}  // namespace temper
