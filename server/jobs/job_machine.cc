// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/job_machine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/counted.h"

namespace temper {
namespace {

using namespace job_event;

JobLife Enter(JobLife life, v1::JobState state, std::string reason) {
  life.state = state;
  life.reason = std::move(reason);
  life.cause = v1::FAILURE_CAUSE_UNSPECIFIED;
  life.retry_at.reset();
  life.ending.reset();
  return life;
}

JobLife Stopping(const JobLife& life, std::string reason, std::optional<GangEnding> ending) {
  JobLife next = Enter(life, v1::JOB_STATE_STOPPING, std::move(reason));
  next.ending = std::move(ending);
  return next;
}

JobLife Failed(const JobLife& life, const GangEnding& ending, std::string reason) {
  JobLife next = Enter(life, v1::JOB_STATE_FAILED, std::move(reason));
  next.cause = ending.cause;
  return next;
}

bool IsWellEnded(const GangEnding& ending) { return ending.cause == v1::FAILURE_CAUSE_UNSPECIFIED; }

// The same for a gang that only looked.
JobLife AfterPreflight(JobLife life, const GangEnding& ending) {
  life.preflight = false;
  if (life.target == v1::JOB_TARGET_CANCEL) return Enter(life, v1::JOB_STATE_CANCELLED, "cancelled on request");
  if (!IsWellEnded(ending) && (life.preflight_only || !IsRetried(ending.cause))) {
    return Failed(life, ending, ending.message);
  }
  if (life.preflight_only) return Enter(life, v1::JOB_STATE_SUCCEEDED, "");
  if (life.target == v1::JOB_TARGET_PAUSE) return Enter(life, v1::JOB_STATE_PAUSED, "paused on request");
  if (IsWellEnded(ending)) return Enter(life, v1::JOB_STATE_QUEUED, "");
  return Enter(
      life, v1::JOB_STATE_QUEUED,
      absl::StrCat("goes on without a preflight, which ended with ", CauseName(ending.cause), ": ", ending.message));
}

// What becomes of a job whose gang is gone, having ended as `ending` says.
JobLife AfterGang(const JobLife& life, const GangEnding& ending, const RetryPolicy& policy, WallTime now) {
  if (life.preflight) return AfterPreflight(life, ending);
  if (life.target == v1::JOB_TARGET_CANCEL) return Enter(life, v1::JOB_STATE_CANCELLED, "cancelled on request");
  // However its processes ended: all is done.
  if (life.export_committed) {
    JobLife next = Enter(life, v1::JOB_STATE_SUCCEEDED, "");
    next.target = v1::JOB_TARGET_RUN;
    return next;
  }
  if (life.target == v1::JOB_TARGET_PAUSE) {
    if (IsWellEnded(ending) || IsRetried(ending.cause)) return Enter(life, v1::JOB_STATE_PAUSED, "paused on request");
    return Failed(life, ending, ending.message);
  }
  if (IsWellEnded(ending)) {
    const GangEnding bug{v1::FAILURE_CAUSE_INTERNAL, "the rank reported its end without having committed an export"};
    return AfterGang(life, bug, policy, now);
  }
  if (ending.cause == v1::FAILURE_CAUSE_PREEMPTED) {
    return Enter(life, v1::JOB_STATE_QUEUED, absl::StrCat("preempted: ", ending.message));
  }
  if (!IsRetried(ending.cause)) return Failed(life, ending, ending.message);
  if (life.restarts_since_checkpoint >= policy.max_restarts) {
    return Failed(life, ending,
                  absl::StrCat(ending.message, " (given up after ", Counted(life.restarts_since_checkpoint, "restart"),
                               " without a new checkpoint)"));
  }
  JobLife next = Enter(life, v1::JOB_STATE_QUEUED, "");
  ++next.restarts;
  ++next.restarts_since_checkpoint;
  next.retry_at = now + Backoff(policy, next.restarts_since_checkpoint);
  next.reason = absl::StrCat("restart ", next.restarts_since_checkpoint, " of ", policy.max_restarts, " after ",
                             CauseName(ending.cause), ": ", ending.message);
  return next;
}

// One overload an event.
struct Transition {
  const JobLife& life;
  const RetryPolicy& policy;
  WallTime now;

  JobLife operator()(const SlotAssigned&) const {
    if (life.state != v1::JOB_STATE_QUEUED || life.target != v1::JOB_TARGET_RUN) return life;
    // It is epoch 0: nothing was launched to train.
    if (life.preflight) return Enter(life, v1::JOB_STATE_CHECKING, "");
    JobLife next = Enter(life, v1::JOB_STATE_STARTING, "");
    ++next.epoch;
    next.export_committed = false;
    return next;
  }

  JobLife operator()(const LaunchFailed& event) const {
    // STOPPING: cancelled while it was being launched.
    if (!HasGang(life.state) || life.state == v1::JOB_STATE_RUNNING) return life;
    return AfterGang(life, {v1::FAILURE_CAUSE_LAUNCH, event.message}, policy, now);
  }

  JobLife operator()(const NodesAttached&) const {
    if (life.state != v1::JOB_STATE_STARTING) return life;
    return Enter(life, v1::JOB_STATE_RUNNING, "");
  }

  JobLife operator()(const GangEnded& event) const {
    // A rank that ends while it is being stopped ends because it is being stopped.
    if (!IsAtWork() && !TellsMore(event.ending)) return life;
    std::string reason = IsWellEnded(event.ending) ? "finished"
                                                   : absl::StrCat("stopping after ", CauseName(event.ending.cause),
                                                                  ": ", event.ending.message);
    return Stopping(life, std::move(reason), event.ending);
  }

  JobLife operator()(const ProcessesGone& event) const {
    if (!HasGang(life.state)) return life;
    GangEnding ending = life.ending.value_or(event.ending);
    // Workers that die before they have said a word were never there.
    if (life.state == v1::JOB_STATE_STARTING && ending.cause == v1::FAILURE_CAUSE_RANK_LOST) {
      ending.cause = v1::FAILURE_CAUSE_LAUNCH;
    }
    return AfterGang(life, ending, policy, now);
  }

  JobLife operator()(const PauseRequested&) const {
    if (IsFinal(life.state) || life.target != v1::JOB_TARGET_RUN || life.preflight_only) return life;
    if (IsDone()) return life;
    JobLife next = HasGang(life.state) ? Stopping(life, "pausing on request", life.ending)
                                       : Enter(life, v1::JOB_STATE_PAUSED, "paused on request");
    next.target = v1::JOB_TARGET_PAUSE;
    return next;
  }

  JobLife operator()(const ResumeRequested&) const {
    if (IsFinal(life.state) || life.target != v1::JOB_TARGET_PAUSE) return life;
    // A gang that is stopping for the pause is let go; the job starts again after it, free of charge.
    const GangEnding pause{v1::FAILURE_CAUSE_PREEMPTED, "paused and resumed"};
    JobLife next = HasGang(life.state) ? Stopping(life, "pausing, to be resumed", life.ending.value_or(pause))
                                       : Enter(life, v1::JOB_STATE_QUEUED, "resumed on request");
    next.target = v1::JOB_TARGET_RUN;
    return next;
  }

  // Than what the gang is being stopped for.
  bool TellsMore(const GangEnding& ending) const {
    const bool failed = !IsWellEnded(ending) && ending.cause != v1::FAILURE_CAUSE_PREEMPTED;
    return life.target == v1::JOB_TARGET_RUN && life.ending && life.ending->secondhand && failed && !ending.secondhand;
  }

  // A gang that nobody has told to stop.
  bool IsAtWork() const { return HasGang(life.state) && life.state != v1::JOB_STATE_STOPPING; }

  // All is done and committed but for the exit of the processes: too late for anything else.
  bool IsDone() const { return life.ending && IsWellEnded(*life.ending) && life.export_committed; }

  JobLife operator()(const CancelRequested&) const {
    if (IsFinal(life.state) || life.target == v1::JOB_TARGET_CANCEL) return life;
    if (IsDone()) return life;
    JobLife next = HasGang(life.state) ? Stopping(life, "cancelled on request", life.ending)
                                       : Enter(life, v1::JOB_STATE_CANCELLED, "cancelled on request");
    next.target = v1::JOB_TARGET_CANCEL;
    return next;
  }

  JobLife operator()(const ServerStops&) const {
    if (!IsAtWork()) return life;
    return Stopping(life, "the server stops", GangEnding{v1::FAILURE_CAUSE_PREEMPTED, "the server was stopped"});
  }
};

// "FAILURE_CAUSE_RANK_LOST" → "RANK_LOST".
std::string WithoutPrefix(const std::string& name, size_t prefix) {
  return name.size() > prefix ? name.substr(prefix) : "UNKNOWN";
}

}  // namespace

JobLife Advance(const JobLife& life, const JobMachineEvent& event, const RetryPolicy& policy, WallTime now) {
  return std::visit(Transition{life, policy, now}, event);
}

bool IsFinal(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED || state == v1::JOB_STATE_CANCELLED;
}

bool KeepsProgress(const JobLife& life) {
  if (life.target == v1::JOB_TARGET_CANCEL || life.preflight) return false;
  return life.target == v1::JOB_TARGET_PAUSE || (life.ending && life.ending->cause == v1::FAILURE_CAUSE_PREEMPTED);
}

bool HasGang(v1::JobState state) {
  return state == v1::JOB_STATE_CHECKING || state == v1::JOB_STATE_STARTING || state == v1::JOB_STATE_RUNNING ||
         state == v1::JOB_STATE_STOPPING;
}

bool IsRetried(v1::FailureCause cause) {
  switch (cause) {
    case v1::FAILURE_CAUSE_RANK_LOST:
    case v1::FAILURE_CAUSE_PREEMPTED:
    case v1::FAILURE_CAUSE_LAUNCH:
    case v1::FAILURE_CAUSE_STORAGE:
    case v1::FAILURE_CAUSE_HANG:
    case v1::FAILURE_CAUSE_INTERNAL:
      return true;
    default:
      return false;
  }
}

std::chrono::seconds Backoff(const RetryPolicy& policy, int32_t restart) {
  std::chrono::seconds wait = policy.first_backoff;
  for (int32_t i = 1; i < restart && wait < policy.longest_backoff; ++i) wait *= 2;
  return std::min(wait, policy.longest_backoff);
}

std::string StateName(v1::JobState state) {
  return WithoutPrefix(v1::JobState_Name(state), std::string_view("JOB_STATE_").size());
}

std::string CauseName(v1::FailureCause cause) {
  return WithoutPrefix(v1::FailureCause_Name(cause), std::string_view("FAILURE_CAUSE_").size());
}

}  // namespace temper
