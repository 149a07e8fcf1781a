// SPDX-License-Identifier: Apache-2.0
#include "worker/train/checkpointer.h"

#include <ATen/ATen.h>

#include <exception>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fault_point.h"

namespace temper {
namespace {

using Seconds = std::chrono::duration<double>;

}  // namespace

bool CheckpointDue(const CheckpointOptions& options, int64_t step, std::chrono::duration<double> since_last) {
  if (options.every_steps > 0 && step % options.every_steps == 0) return true;
  return options.every_minutes > 0 && since_last.count() >= 60 * options.every_minutes;
}

Checkpointer::Checkpointer(ObjectStore& store, const TrainJob& job, CheckpointSource source, const Transformer& model,
                           AdamW& optimizer, int64_t start, std::string start_uri, TrainObserver& observer)
    : store_(store),
      job_(job),
      source_(std::move(source)),
      model_(model),
      optimizer_(optimizer),
      observer_(observer),
      start_(start),
      saved_step_(start),
      newest_uri_(std::move(start_uri)) {}

Checkpointer::~Checkpointer() {
  if (writing_.valid()) writing_.wait();
}

void Checkpointer::AfterStep(const TrainPosition& position) {
  const Clock::time_point now = Clock::now();
  Collect(/*wait=*/false);
  if (position.step == saved_step_) return;
  if (position.best_step == position.step && position.step > 0) {
    Collect(/*wait=*/true);
    Begin(position, /*paused_since=*/now);
    return;
  }
  due_ = due_ || CheckpointDue(job_.checkpoint_options, position.step, now - last_);
  if (due_ && !writing_.valid()) Begin(position, /*paused_since=*/now);
}

void Checkpointer::SaveNow(const TrainPosition& position) {
  const Clock::time_point now = Clock::now();
  Collect(/*wait=*/true);
  if (position.step == saved_step_) return;
  Begin(position, /*paused_since=*/now);
  Collect(/*wait=*/true);
}

void Checkpointer::Finish() { Collect(/*wait=*/true); }

void Checkpointer::Begin(const TrainPosition& position, Clock::time_point paused_since) {
  due_ = false;
  last_ = Clock::now();
  saved_step_ = position.step;
  CheckpointReport report{.step = position.step, .best = position.best_step == position.step};
  try {
    TrainSnapshot snapshot = TakeSnapshot(model_, optimizer_.moments(), position);
    report.pause_seconds = Seconds(Clock::now() - paused_since).count();
    FaultPoint("rank.checkpoint.snapshot_taken");
    writing_ = std::async(std::launch::async, [this, snapshot = std::move(snapshot), report]() mutable {
      return Write(std::move(snapshot), std::move(report));
    });
  } catch (const std::exception& error) {
    saved_step_ = start_;
    observer_.OnLog(LogSeverity::kWarning, absl::StrCat("no checkpoint at step ", position.step,
                                                        ": there is no memory for a snapshot: ", error.what()));
  }
}

Checkpointer::Written Checkpointer::Write(TrainSnapshot snapshot, CheckpointReport report) {
  const Clock::time_point begin = Clock::now();
  const CheckpointKey key{report.step, job_.epoch};
  auto publication = Publication::Begin(store_, CheckpointDirectory(job_.job_id, key), job_.job_id, job_.epoch);
  if (!publication.ok()) return {publication.status(), report, {}};
  try {
    if (absl::Status status = WriteTrainCheckpoint(source_, snapshot, **publication); !status.ok()) {
      return {status, report, {}};
    }
  } catch (const std::exception& error) {
    return {absl::InternalError(error.what()), report, {}};
  }
  const int64_t best_step = snapshot.position.best_step;
  snapshot = {};
  FaultPoint("rank.checkpoint.before_commit");
  if (absl::Status status = (*publication)->Commit(); !status.ok()) return {status, report, {}};
  FaultPoint("rank.checkpoint.committed");
  report.uri = (*publication)->uri();
  report.bytes = (*publication)->manifest().total_size();
  report.files = static_cast<int32_t>((*publication)->manifest().files.size());
  report.commit_seconds = Seconds(Clock::now() - begin).count();
  return {absl::OkStatus(), report, RemoveReplaced(best_step)};
}

// What can't be listed or removed stays, until the next checkpoint.
std::vector<CheckpointKey> Checkpointer::RemoveReplaced(int64_t best_step) {
  const auto keys = ListCommittedCheckpoints(store_, job_.job_id);
  if (!keys.ok()) return {};
  std::vector<CheckpointKey> removed;
  int32_t kept = 0;
  for (const CheckpointKey& key : *keys) {
    if (key.epoch > job_.epoch) continue;  // not ours to judge: we are an old gang
    // Steps of an earlier gang that this one did not go on from: it takes them itself.
    const bool superseded = key.epoch < job_.epoch && key.step > start_;
    if (!superseded && (kept++ < job_.checkpoint_options.keep_last || key.step == best_step)) continue;
    FaultPoint("rank.checkpoint.before_removal");
    if (Unpublish(store_, CheckpointDirectory(job_.job_id, key)).ok()) removed.push_back(key);
  }
  return removed;
}

void Checkpointer::Collect(bool wait) {
  if (!writing_.valid()) return;
  if (!wait && writing_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
  const Written written = writing_.get();
  if (!written.status.ok()) {
    saved_step_ = start_;
    observer_.OnLog(LogSeverity::kWarning,
                    absl::StrCat("the checkpoint of step ", written.report.step,
                                 " could not be written; training goes on: ", written.status.message()));
    return;
  }
  newest_uri_ = written.report.uri;
  observer_.OnCheckpoint(written.report);
  for (const CheckpointKey& key : written.removed) observer_.OnCheckpointRemoved(key.step, key.epoch);
}

}  // namespace temper
