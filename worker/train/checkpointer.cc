// SPDX-License-Identifier: Apache-2.0
#include "worker/train/checkpointer.h"

#include <ATen/ATen.h>

#include <exception>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "common/fault_point.h"
#include "worker/checkpoint/joint_publication.h"
#include "worker/parallel/agree.h"

namespace temper {
namespace {

using Seconds = std::chrono::duration<double>;

}  // namespace

bool CheckpointDue(const CheckpointOptions& options, int64_t step, std::chrono::duration<double> since_last) {
  if (options.every_steps > 0 && step % options.every_steps == 0) return true;
  return options.every_minutes > 0 && since_last.count() >= 60 * options.every_minutes;
}

Checkpointer::Checkpointer(ObjectStore& store, const TrainJob& job, const Gang& gang, ProcessGroup* writing,
                           CheckpointSource source, const TrainableModel& model, AdamW& optimizer, int64_t start,
                           std::string start_uri, TrainObserver& observer)
    : store_(store),
      job_(job),
      gang_(gang),
      ranks_(writing),
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
  // Ranks differ in their clocks, and in when they see that one is written.
  if (!gang_.AskFirst(Wanted(position, now))) return;
  Collect(/*wait=*/true);
  Begin(position, /*paused_since=*/now);
}

bool Checkpointer::Wanted(const TrainPosition& position, Clock::time_point now) {
  if (position.step == saved_step_) return false;
  if (position.best_step == position.step && position.step > 0) return true;
  due_ = due_ || CheckpointDue(job_.checkpoint_options, position.step, now - last_);
  return due_ && !writing_.valid();
}

void Checkpointer::SaveNow(const TrainPosition& position) {
  const Clock::time_point now = Clock::now();
  Collect(/*wait=*/true);
  if (!gang_.AskFirst(position.step != saved_step_)) return;
  Begin(position, /*paused_since=*/now);
  Collect(/*wait=*/true);
}

void Checkpointer::Finish() { Collect(/*wait=*/true); }

void Checkpointer::Begin(const TrainPosition& position, Clock::time_point paused_since) {
  due_ = false;
  last_ = Clock::now();
  saved_step_ = position.step;
  CheckpointReport report{.step = position.step, .best = position.best_step == position.step};
  TrainSnapshot snapshot;
  absl::Status taken;
  try {
    snapshot = TakeSnapshot(model_, optimizer_.moments(), position);
    snapshot.unheard = observer_.Unheard();
  } catch (const std::exception& error) {
    taken = absl::ResourceExhaustedError(absl::StrCat("there is no memory for a snapshot: ", error.what()));
  }
  taken = Agree(taken, gang_.group());
  if (!taken.ok()) {
    saved_step_ = start_;
    observer_.OnLog(LogSeverity::kWarning,
                    absl::StrCat("no checkpoint at step ", position.step, ": ", taken.message()));
    return;
  }
  report.pause_seconds = Seconds(Clock::now() - paused_since).count();
  FaultPoint("rank.checkpoint.snapshot_taken");
  writing_ = std::async(std::launch::async, [this, snapshot = std::move(snapshot), report]() mutable {
    return Write(std::move(snapshot), std::move(report));
  });
}

Checkpointer::Written Checkpointer::Write(TrainSnapshot snapshot, CheckpointReport report) {
  const Clock::time_point begin = Clock::now();
  const int64_t best_step = snapshot.position.best_step;
  const auto write = [&]() -> absl::Status {
    const std::string directory = CheckpointDirectory(job_.job_id, {report.step, job_.epoch});
    const auto publication = BeginTogether(store_, directory, job_.job_id, job_.epoch, ranks_);
    if (!publication.ok()) return publication.status();
    absl::Status written = WriteTrainCheckpoint(source_, snapshot, **publication, ranks_);
    if (!written.ok()) return written;
    snapshot = {};
    FaultPoint("rank.checkpoint.before_commit");
    if (absl::Status status = CommitTogether(**publication, ranks_); !status.ok()) return status;
    FaultPoint("rank.checkpoint.committed");
    report.uri = (*publication)->uri();
    report.bytes = (*publication)->manifest().total_size();
    report.files = static_cast<int32_t>((*publication)->manifest().files.size());
    return absl::OkStatus();
  };
  try {
    if (absl::Status status = write(); !status.ok()) return {status, report, {}};
  } catch (const CollectiveError& error) {
    return {error.status(), report, {}};
  } catch (const std::exception& error) {
    return {absl::InternalError(error.what()), report, {}};
  }
  report.commit_seconds = Seconds(Clock::now() - begin).count();
  return {absl::OkStatus(), report, gang_.rank() == 0 ? RemoveReplaced(best_step) : std::vector<CheckpointKey>()};
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
  // A rank is gone, or the ranks no longer know the same.
  if (CauseOf(written.status) == FailureCause::kRankLost) throw CollectiveError(written.status);
  if (!written.status.ok()) {
    saved_step_ = start_;
    observer_.OnLog(LogSeverity::kWarning,
                    absl::StrCat("the checkpoint of step ", written.report.step,
                                 " could not be written; training goes on: ", written.status.message()));
    return;
  }
  newest_uri_ = written.report.uri;
  if (gang_.rank() > 0) return;  // rank 0 knows how much all of them wrote
  observer_.OnCheckpoint(written.report);
  for (const CheckpointKey& key : written.removed) observer_.OnCheckpointRemoved(key.step, key.epoch);
}

}  // namespace temper
