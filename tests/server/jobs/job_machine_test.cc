// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/job_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace temper {
namespace {

using namespace job_event;
using testing::HasSubstr;

const WallTime kNow = FakeClock().Wall();
const RetryPolicy kPolicy;
const GangEnding kDone;
const GangEnding kLost{v1::FAILURE_CAUSE_RANK_LOST, "rank 0 died"};
const GangEnding kUserError{v1::FAILURE_CAUSE_USER_INPUT, "no such model"};
const GangEnding kTaken{v1::FAILURE_CAUSE_PREEMPTED, "the host goes away"};

// Every situation that a job can be in, by name.
struct Situation {
  std::string name;
  JobLife life;
};

JobLife Life(v1::JobState state, std::function<void(JobLife&)> change = [](JobLife&) {}) {
  JobLife life;
  life.state = state;
  life.epoch = state == v1::JOB_STATE_QUEUED ? 0 : 1;
  change(life);
  return life;
}

void Looking(JobLife& life) {
  life.epoch = 0;
  life.preflight = true;
}

void OnlyLooking(JobLife& life) {
  Looking(life);
  life.preflight_only = true;
}

const std::vector<Situation>& Situations() {
  static const std::vector<Situation> situations = {
      {"queued", Life(v1::JOB_STATE_QUEUED)},
      {"waits for a retry", Life(v1::JOB_STATE_QUEUED,
                                 [](JobLife& life) {
                                   life.epoch = life.restarts = 1;
                                   life.retry_at = kNow;
                                 })},
      {"starting", Life(v1::JOB_STATE_STARTING)},
      {"running", Life(v1::JOB_STATE_RUNNING)},
      {"exported", Life(v1::JOB_STATE_RUNNING, [](JobLife& life) { life.export_committed = true; })},
      {"worn out", Life(v1::JOB_STATE_RUNNING,
                        [](JobLife& life) { life.restarts = life.restarts_since_checkpoint = kPolicy.max_restarts; })},
      {"restarted often, but has a new checkpoint",
       Life(v1::JOB_STATE_RUNNING, [](JobLife& life) { life.restarts = kPolicy.max_restarts; })},
      {"pausing", Life(v1::JOB_STATE_STOPPING, [](JobLife& life) { life.target = v1::JOB_TARGET_PAUSE; })},
      {"pausing, but was done", Life(v1::JOB_STATE_STOPPING,
                                     [](JobLife& life) {
                                       life.target = v1::JOB_TARGET_PAUSE;
                                       life.export_committed = true;
                                     })},
      {"paused", Life(v1::JOB_STATE_PAUSED, [](JobLife& life) { life.target = v1::JOB_TARGET_PAUSE; })},
      {"cancelling", Life(v1::JOB_STATE_STOPPING, [](JobLife& life) { life.target = v1::JOB_TARGET_CANCEL; })},
      {"finishing", Life(v1::JOB_STATE_STOPPING,
                         [](JobLife& life) {
                           life.export_committed = true;
                           life.ending = kDone;
                         })},
      {"failing", Life(v1::JOB_STATE_STOPPING, [](JobLife& life) { life.ending = kUserError; })},
      {"restarting", Life(v1::JOB_STATE_STOPPING, [](JobLife& life) { life.ending = kLost; })},
      {"preempted", Life(v1::JOB_STATE_STOPPING, [](JobLife& life) { life.ending = kTaken; })},
      {"to be looked at", Life(v1::JOB_STATE_QUEUED, [](JobLife& life) { life.preflight = true; })},
      {"looking", Life(v1::JOB_STATE_CHECKING, Looking)},
      {"looked", Life(v1::JOB_STATE_STOPPING,
                      [](JobLife& life) {
                        Looking(life);
                        life.ending = kDone;
                      })},
      {"only looking", Life(v1::JOB_STATE_CHECKING, OnlyLooking)},
      {"only looked", Life(v1::JOB_STATE_STOPPING,
                           [](JobLife& life) {
                             OnlyLooking(life);
                             life.ending = kDone;
                           })},
      {"succeeded", Life(v1::JOB_STATE_SUCCEEDED, [](JobLife& life) { life.export_committed = true; })},
      {"failed", Life(v1::JOB_STATE_FAILED, [](JobLife& life) { life.cause = v1::FAILURE_CAUSE_NUMERICS; })},
      {"cancelled", Life(v1::JOB_STATE_CANCELLED, [](JobLife& life) { life.target = v1::JOB_TARGET_CANCEL; })},
  };
  return situations;
}

const JobLife& LifeOf(const std::string& name) {
  for (const Situation& situation : Situations()) {
    if (situation.name == name) return situation.life;
  }
  ADD_FAILURE() << "no situation " << name;
  return Situations().front().life;
}

struct NamedEvent {
  std::string name;
  JobMachineEvent event;
};

const std::vector<NamedEvent>& Events() {
  static const std::vector<NamedEvent> events = {
      {"slot", SlotAssigned{}},      {"launch failed", LaunchFailed{"no binary"}},
      {"attached", NodesAttached{}}, {"ended well", GangEnded{kDone}},
      {"lost", GangEnded{kLost}},    {"user error", GangEnded{kUserError}},
      {"taken", GangEnded{kTaken}},  {"gone", ProcessesGone{kLost}},
      {"cancel", CancelRequested{}}, {"pause", PauseRequested{}},
      {"resume", ResumeRequested{}}, {"server stops", ServerStops{}},
  };
  return events;
}

const JobMachineEvent& EventOf(const std::string& name) {
  for (const NamedEvent& event : Events()) {
    if (event.name == name) return event.event;
  }
  ADD_FAILURE() << "no event " << name;
  return Events().front().event;
}

// "STATE", with what is remarkable about it.
std::string Describe(const JobLife& life) {
  std::string text = StateName(life.state);
  if (life.target == v1::JOB_TARGET_CANCEL) text += " cancel";
  if (life.target == v1::JOB_TARGET_PAUSE) text += " pause";
  if (life.epoch > 1) text += " epoch" + std::to_string(life.epoch);
  if (life.restarts > 0) text += " restarts" + std::to_string(life.restarts);
  if (life.retry_at) text += " later";
  if (life.cause != v1::FAILURE_CAUSE_UNSPECIFIED) text += " " + CauseName(life.cause);
  if (life.ending) {
    const bool well = life.ending->cause == v1::FAILURE_CAUSE_UNSPECIFIED;
    text += " (" + (well ? "done" : CauseName(life.ending->cause)) + ")";
  }
  return text;
}

// The whole machine in one table: rows are situations, columns events; "." is "nothing happens".
TEST(JobMachineTest, EverySituationTimesEveryEvent_AsTheTableSays) {
  const std::vector<std::string> columns = {"slot",   "launch failed", "attached", "ended well",
                                            "lost",   "user error",    "taken",    "gone",
                                            "cancel", "pause",         "resume",   "server stops"};
  const std::string restart = "QUEUED restarts1 later";
  const std::string stop_lost = "STOPPING (RANK_LOST)";
  const std::string stop_user = "STOPPING (USER_INPUT)";
  const std::string stop_taken = "STOPPING (PREEMPTED)";
  const std::string stop_done = "STOPPING (done)";
  const std::string stop_cancel = "STOPPING cancel";
  const std::string stop_pause = "STOPPING pause";
  const std::string done = "SUCCEEDED";
  const std::map<std::string, std::vector<std::string>> table = {
      {"queued", {"STARTING", ".", ".", ".", ".", ".", ".", ".", "CANCELLED cancel", "PAUSED pause", ".", "."}},
      {"waits for a retry",
       {"STARTING epoch2 restarts1", ".", ".", ".", ".", ".", ".", ".", "CANCELLED cancel restarts1",
        "PAUSED pause restarts1", ".", "."}},
      {"starting",
       {".", restart, "RUNNING", stop_done, stop_lost, stop_user, stop_taken, restart, stop_cancel, stop_pause, ".",
        stop_taken}},
      {"running",
       {".", ".", ".", stop_done, stop_lost, stop_user, stop_taken, restart, stop_cancel, stop_pause, ".", stop_taken}},
      {"exported",
       {".", ".", ".", stop_done, stop_lost, stop_user, stop_taken, done, stop_cancel, stop_pause, ".", stop_taken}},
      {"worn out",
       {".", ".", ".", "STOPPING restarts3 (done)", "STOPPING restarts3 (RANK_LOST)", "STOPPING restarts3 (USER_INPUT)",
        "STOPPING restarts3 (PREEMPTED)", "FAILED restarts3 RANK_LOST", "STOPPING cancel restarts3",
        "STOPPING pause restarts3", ".", "STOPPING restarts3 (PREEMPTED)"}},
      {"restarted often, but has a new checkpoint",
       {".", ".", ".", "STOPPING restarts3 (done)", "STOPPING restarts3 (RANK_LOST)", "STOPPING restarts3 (USER_INPUT)",
        "STOPPING restarts3 (PREEMPTED)", "QUEUED restarts4 later", "STOPPING cancel restarts3",
        "STOPPING pause restarts3", ".", "STOPPING restarts3 (PREEMPTED)"}},
      {"pausing", {".", "PAUSED pause", ".", ".", ".", ".", ".", "PAUSED pause", stop_cancel, ".", stop_taken, "."}},
      {"pausing, but was done", {".", done, ".", ".", ".", ".", ".", done, stop_cancel, ".", stop_taken, "."}},
      {"paused", {".", ".", ".", ".", ".", ".", ".", ".", "CANCELLED cancel", ".", "QUEUED", "."}},
      {"cancelling", {".", "CANCELLED cancel", ".", ".", ".", ".", ".", "CANCELLED cancel", ".", ".", ".", "."}},
      {"finishing", {".", done, ".", ".", ".", ".", ".", done, ".", ".", ".", "."}},
      {"failing",
       {".", restart, ".", ".", ".", ".", ".", "FAILED USER_INPUT", "STOPPING cancel (USER_INPUT)",
        "STOPPING pause (USER_INPUT)", ".", "."}},
      {"restarting",
       {".", restart, ".", ".", ".", ".", ".", restart, "STOPPING cancel (RANK_LOST)", "STOPPING pause (RANK_LOST)",
        ".", "."}},
      {"preempted",
       {".", restart, ".", ".", ".", ".", ".", "QUEUED", "STOPPING cancel (PREEMPTED)", "STOPPING pause (PREEMPTED)",
        ".", "."}},
      {"to be looked at",
       {"CHECKING", ".", ".", ".", ".", ".", ".", ".", "CANCELLED cancel", "PAUSED pause", ".", "."}},
      {"looking",
       {".", "QUEUED", ".", stop_done, stop_lost, stop_user, stop_taken, "QUEUED", stop_cancel, stop_pause, ".",
        stop_taken}},
      {"looked",
       {".", "QUEUED", ".", ".", ".", ".", ".", "QUEUED", "STOPPING cancel (done)", "STOPPING pause (done)", ".", "."}},
      {"only looking",
       {".", "FAILED LAUNCH", ".", stop_done, stop_lost, stop_user, stop_taken, "FAILED RANK_LOST", stop_cancel, ".",
        ".", stop_taken}},
      {"only looked", {".", "FAILED LAUNCH", ".", ".", ".", ".", ".", done, "STOPPING cancel (done)", ".", ".", "."}},
      {"succeeded", {".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."}},
      {"failed", {".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."}},
      {"cancelled", {".", ".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."}},
  };
  ASSERT_EQ(table.size(), Situations().size());
  ASSERT_EQ(columns.size(), Events().size());
  for (const Situation& situation : Situations()) {
    const std::vector<std::string>& row = table.at(situation.name);
    ASSERT_EQ(row.size(), columns.size()) << situation.name;
    for (size_t i = 0; i < columns.size(); ++i) {
      const JobLife next = Advance(situation.life, EventOf(columns[i]), kPolicy, kNow);
      if (row[i] == ".") {
        EXPECT_EQ(next, situation.life) << situation.name << " + " << columns[i] << " = " << Describe(next);
      } else {
        EXPECT_EQ(Describe(next), row[i]) << situation.name << " + " << columns[i];
      }
    }
  }
}

// The situations above are all that there are: each state occurs, and so does each event.
TEST(JobMachineTest, Situations_CoverEveryState) {
  for (int state = v1::JOB_STATE_QUEUED; state < v1::JobState_ARRAYSIZE; ++state) {
    const bool found = std::any_of(Situations().begin(), Situations().end(),
                                   [state](const Situation& situation) { return situation.life.state == state; });
    EXPECT_TRUE(found) << v1::JobState_Name(static_cast<v1::JobState>(state));
  }
  for (size_t index = 0; index < std::variant_size_v<JobMachineEvent>; ++index) {
    const bool found = std::any_of(Events().begin(), Events().end(),
                                   [index](const NamedEvent& event) { return event.event.index() == index; });
    EXPECT_TRUE(found) << "event " << index;
  }
}

// From any life, along any three events: what holds always.
TEST(JobMachineTest, AnyThreeEvents_KeepTheInvariants) {
  for (const Situation& situation : Situations()) {
    for (const NamedEvent& first : Events()) {
      for (const NamedEvent& second : Events()) {
        for (const NamedEvent& third : Events()) {
          JobLife life = situation.life;
          for (const NamedEvent* event : {&first, &second, &third}) {
            const JobLife before = life;
            life = Advance(before, event->event, kPolicy, kNow);
            const std::string path = situation.name + ": " + first.name + ", " + second.name + ", " + third.name;
            if (IsFinal(before.state)) {
              EXPECT_EQ(life, before) << path;
            }
            EXPECT_GE(life.epoch, before.epoch) << path;
            EXPECT_LE(life.restarts_since_checkpoint, kPolicy.max_restarts) << path;
            EXPECT_EQ(life.cause != v1::FAILURE_CAUSE_UNSPECIFIED, life.state == v1::JOB_STATE_FAILED) << path;
            if (before.target == v1::JOB_TARGET_CANCEL) {
              EXPECT_EQ(life.target, before.target) << path;
            }
            if (life.target == v1::JOB_TARGET_CANCEL) {
              EXPECT_TRUE(life.state == v1::JOB_STATE_STOPPING || life.state == v1::JOB_STATE_CANCELLED) << path;
            }
            // Slots are free only when the launcher says that nothing is left.
            const bool freed = HasGang(before.state) && !HasGang(life.state);
            const bool confirmed = std::holds_alternative<ProcessesGone>(event->event) ||
                                   std::holds_alternative<LaunchFailed>(event->event);
            if (freed) {
              EXPECT_TRUE(confirmed) << path;
            }
            if (life.ending) {
              EXPECT_EQ(life.state, v1::JOB_STATE_STOPPING) << path;
            }
            if (life.retry_at) {
              EXPECT_EQ(life.state, v1::JOB_STATE_QUEUED) << path;
            }
          }
        }
      }
    }
  }
}

TEST(JobMachineTest, EveryCause_IsRetriedOrNot) {
  const std::map<v1::FailureCause, std::string> outcomes = {
      {v1::FAILURE_CAUSE_USER_INPUT, "FAILED USER_INPUT"},
      {v1::FAILURE_CAUSE_NUMERICS, "FAILED NUMERICS"},
      {v1::FAILURE_CAUSE_OUT_OF_MEMORY, "FAILED OUT_OF_MEMORY"},
      {v1::FAILURE_CAUSE_RANK_LOST, "QUEUED restarts1 later"},
      {v1::FAILURE_CAUSE_PREEMPTED, "QUEUED"},
      {v1::FAILURE_CAUSE_LAUNCH, "QUEUED restarts1 later"},
      {v1::FAILURE_CAUSE_STORAGE, "QUEUED restarts1 later"},
      {v1::FAILURE_CAUSE_HANG, "QUEUED restarts1 later"},
      {v1::FAILURE_CAUSE_INTERNAL, "QUEUED restarts1 later"},
  };
  EXPECT_EQ(outcomes.size(), static_cast<size_t>(v1::FailureCause_ARRAYSIZE - 1));
  for (const auto& [cause, outcome] : outcomes) {
    const JobLife stopping = Advance(LifeOf("running"), GangEnded{{cause, "why"}}, kPolicy, kNow);
    const JobLife next = Advance(stopping, ProcessesGone{kLost}, kPolicy, kNow);
    EXPECT_EQ(Describe(next), outcome) << CauseName(cause);
    EXPECT_THAT(next.reason, HasSubstr("why"));
  }
}

TEST(JobMachineTest, EnvironmentalFailures_BackOffAndAreGivenUp) {
  JobLife life;
  std::vector<int64_t> waits;
  for (int i = 0; i < 4; ++i) {
    life = Advance(life, SlotAssigned{}, kPolicy, kNow);
    life = Advance(life, NodesAttached{}, kPolicy, kNow);
    life = Advance(life, ProcessesGone{kLost}, kPolicy, kNow);
    if (life.retry_at) waits.push_back(std::chrono::duration_cast<std::chrono::seconds>(*life.retry_at - kNow).count());
  }
  EXPECT_THAT(waits, testing::ElementsAre(5, 10, 20));
  EXPECT_EQ(life.state, v1::JOB_STATE_FAILED);
  EXPECT_EQ(life.epoch, 4);
  EXPECT_EQ(life.reason, "rank 0 died (given up after 3 restarts without a new checkpoint)");
}

TEST(JobMachineTest, Preemption_AnyNumberOfTimes_IsFree) {
  JobLife life;
  for (int i = 0; i < 100; ++i) {
    life = Advance(life, SlotAssigned{}, kPolicy, kNow);
    life = Advance(life, ServerStops{}, kPolicy, kNow);
    life = Advance(life, ProcessesGone{kLost}, kPolicy, kNow);
    EXPECT_EQ(life.state, v1::JOB_STATE_QUEUED);
  }
  EXPECT_EQ(life.restarts, 0);
  EXPECT_EQ(life.epoch, 100);
}

TEST(JobMachineTest, RankEndsWellWithoutExport_IsABugOfOurs) {
  JobLife life = Advance(LifeOf("running"), GangEnded{kDone}, kPolicy, kNow);
  life = Advance(life, ProcessesGone{kLost}, kPolicy, kNow);
  EXPECT_EQ(Describe(life), "QUEUED restarts1 later");
  EXPECT_THAT(life.reason, HasSubstr("without having committed an export"));
}

TEST(JobMachineTest, ExportOfAnEarlierGang_DoesNotCountForTheNext) {
  JobLife life = LifeOf("waits for a retry");
  life.export_committed = true;
  life = Advance(life, SlotAssigned{}, kPolicy, kNow);
  EXPECT_FALSE(life.export_committed);
}

TEST(JobMachineTest, EndingAtSecondHand_GivesWayToOneThatTellsMore_Once) {
  const GangEnding misses{v1::FAILURE_CAUSE_RANK_LOST, "rank 0 has lost rank 1", /*secondhand=*/true};
  const GangEnding memory{v1::FAILURE_CAUSE_OUT_OF_MEMORY, "rank 1 ran out of memory"};
  const JobLife life = Advance(LifeOf("running"), GangEnded{misses}, kPolicy, kNow);
  for (const GangEnding& ending : {misses, kDone, kTaken}) {
    EXPECT_EQ(Advance(life, GangEnded{ending}, kPolicy, kNow), life);
  }
  const JobLife known = Advance(life, GangEnded{memory}, kPolicy, kNow);
  EXPECT_EQ(known.ending, memory);
  EXPECT_THAT(known.reason, HasSubstr("rank 1 ran out of memory"));
  EXPECT_EQ(Advance(known, GangEnded{kLost}, kPolicy, kNow), known);
  EXPECT_EQ(Describe(Advance(known, ProcessesGone{kLost}, kPolicy, kNow)), "FAILED OUT_OF_MEMORY");
}

TEST(JobMachineTest, Preflight_IsTriedOnce_AndCostsNothing) {
  JobLife life = LifeOf("to be looked at");
  life = Advance(life, SlotAssigned{}, kPolicy, kNow);
  EXPECT_EQ(life.epoch, 0);
  life = Advance(life, NodesAttached{}, kPolicy, kNow);
  life = Advance(life, ProcessesGone{kLost}, kPolicy, kNow);
  EXPECT_EQ(life.reason, "goes on without a preflight, which ended with RANK_LOST: rank 0 died");
  EXPECT_FALSE(life.preflight);
  EXPECT_FALSE(life.retry_at);
  EXPECT_EQ(life.restarts, 0);
  life = Advance(life, SlotAssigned{}, kPolicy, kNow);
  EXPECT_EQ(Describe(life), "STARTING");
  EXPECT_EQ(life.epoch, 1);
}

TEST(JobMachineTest, Preflight_ThatFindsAnError_EndsTheJob) {
  JobLife life = Advance(LifeOf("looking"), GangEnded{kUserError}, kPolicy, kNow);
  life = Advance(life, ProcessesGone{kDone}, kPolicy, kNow);
  EXPECT_EQ(Describe(life), "FAILED USER_INPUT");
  EXPECT_EQ(life.reason, "no such model");
}

TEST(JobMachineTest, WorkerDiesBeforeItsFirstWord_IsALaunchFailure) {
  const JobLife life = Advance(LifeOf("starting"), ProcessesGone{kLost}, kPolicy, kNow);
  EXPECT_EQ(life.reason, "restart 1 of 3 after LAUNCH: rank 0 died");
}

TEST(JobMachineTest, Backoff_GrowsToItsLimit) {
  EXPECT_EQ(Backoff(kPolicy, 1), std::chrono::seconds(5));
  EXPECT_EQ(Backoff(kPolicy, 2), std::chrono::seconds(10));
  EXPECT_EQ(Backoff(kPolicy, 1000), kPolicy.longest_backoff);
}

}  // namespace
}  // namespace temper
