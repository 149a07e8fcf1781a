// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <variant>

#include "common/clock.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

// The life of a job, as pure functions: no clock, no store, no process. The controller feeds it with what happens and
// carries out what it says.
//
// A job that is to be looked at first (JobLife::preflight) begins with a gang that needs no slot and trains nothing:
//
//   ──▶ QUEUED ──room──▶ CHECKING ──ended──▶ STOPPING ──all processes gone──▶ QUEUED, to be trained; or FAILED
//
//            ┌────────────────────── retry, or preempted ──────────────────────┐
//            ▼                                                                 │
//   ──▶ QUEUED ──slot──▶ STARTING ─nodes attached──▶ RUNNING ──ended──▶ STOPPING ──all processes gone──▶ SUCCEEDED
//        ▲  │                └──────────── ended ─────────────────────────▶ ▲       │                    FAILED
//        │  └── cancel ─▶ CANCELLED                  cancel, pause ─────────┘       ├──▶ CANCELLED
//        └── resume ── PAUSED ◀── pause (QUEUED too) ──────────────────────────────┘

// How a job is retried.
struct RetryPolicy {
  // Restarts without a new checkpoint between them after which an environmental failure is final.
  int32_t max_restarts = 3;
  // Wait before the first one; it doubles with each.
  std::chrono::seconds first_backoff{5};
  std::chrono::seconds longest_backoff{300};
};

// How the present gang ended, known before its processes are gone.
struct GangEnding {
  // Unspecified: it did all that it was asked to.
  v1::FailureCause cause = v1::FAILURE_CAUSE_UNSPECIFIED;
  std::string message;
  // Of one that misses another, or was told by a launcher what may be known already: an ending at first hand that comes
  // later takes its place. Not kept over a restart of the server.
  bool secondhand = false;

  bool operator==(const GangEnding&) const = default;
};

// All that decides what happens to a job next.
struct JobLife {
  v1::JobState state = v1::JOB_STATE_QUEUED;
  v1::JobTarget target = v1::JOB_TARGET_RUN;
  int32_t epoch = 0;
  int32_t restarts = 0;
  // Set to 0 when one is committed.
  int32_t restarts_since_checkpoint = 0;
  // By the present gang.
  bool export_committed = false;
  // The next gang, or the present one, only looks. It is tried once: what it can't tell, the training will.
  bool preflight = false;
  // … and there is nothing to train after it.
  bool preflight_only = false;
  // Why it is in this state; what a user reads.
  std::string reason;
  // Unspecified unless FAILED.
  v1::FailureCause cause = v1::FAILURE_CAUSE_UNSPECIFIED;
  // QUEUED: not to be started before. Absent: at once.
  std::optional<WallTime> retry_at;
  // STOPPING: how the gang ended. Absent: it is being stopped without having ended (a cancel).
  std::optional<GangEnding> ending;

  bool operator==(const JobLife&) const = default;
};

// What can happen to a job.
namespace job_event {
// The scheduler found a slot, or room for a preflight.
struct SlotAssigned {};
// The launcher could not start the gang; nothing runs.
struct LaunchFailed {
  std::string message;
};
// The gang's nodes have all said Hello.
struct NodesAttached {};
// The gang has ended by its own account, or must be ended for its failure (a hang).
struct GangEnded {
  GangEnding ending;
};
// The launcher confirms that no process is left. `ending` is its own explanation, for a gang that said nothing.
struct ProcessesGone {
  GangEnding ending;
};
// The user wants no more of it.
struct CancelRequested {};
// The user wants it to wait, or to go on.
struct PauseRequested {};
struct ResumeRequested {};
// The server goes away and takes the gang with it.
struct ServerStops {};
}  // namespace job_event

using JobMachineEvent = std::variant<job_event::SlotAssigned, job_event::LaunchFailed, job_event::NodesAttached,
                                     job_event::GangEnded, job_event::ProcessesGone, job_event::CancelRequested,
                                     job_event::PauseRequested, job_event::ResumeRequested, job_event::ServerStops>;

// What `event` at `now` makes of `life`. An event that means nothing in a state leaves the life as it is: events come
// from many sides and cross each other.
JobLife Advance(const JobLife& life, const JobMachineEvent& event, const RetryPolicy& policy, WallTime now);

// SUCCEEDED, FAILED, CANCELLED.
bool IsFinal(v1::JobState state);

// Whether a gang that is STOPPING is to commit a checkpoint first.
bool KeepsProgress(const JobLife& life);

// CHECKING, STARTING, RUNNING, STOPPING: processes may exist; they hold a slot, unless they only look.
bool HasGang(v1::JobState state);

// Whether a failure is the environment's, so that trying again may help.
bool IsRetried(v1::FailureCause cause);

// Waiting time before restart number `restart` (from 1).
std::chrono::seconds Backoff(const RetryPolicy& policy, int32_t restart);

// "QUEUED", "RANK_LOST": names without the prefix of their enum.
std::string StateName(v1::JobState state);
std::string CauseName(v1::FailureCause cause);

}  // namespace temper
