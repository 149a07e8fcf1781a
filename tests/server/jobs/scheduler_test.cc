// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

const WallTime kNow = FakeClock().Wall();

WaitingJob Waiting(const std::string& id, int priority = 0, int age_s = 0) {
  return {id, "cpu", 1, priority, kNow - seconds(age_s), std::nullopt};
}

TEST(SchedulerTest, FreeSlots_AreFilledByPriorityThenAgeThenId) {
  const Schedule schedule = PlanSchedule(
      {{"cpu", 9}}, {Waiting("b"), Waiting("young", 5, 1), Waiting("old", 5, 2), Waiting("a"), Waiting("low", -1, 99)},
      {}, kNow);
  EXPECT_THAT(schedule.start, ElementsAre("old", "young", "a", "b", "low"));
  EXPECT_THAT(schedule.reasons, IsEmpty());
}

TEST(SchedulerTest, NoFreeSlot_ReasonNamesTheHolders) {
  const Schedule schedule = PlanSchedule({{"cpu", 2}}, {Waiting("c")}, {{"a", "cpu", 1}, {"b", "cpu", 1}}, kNow);
  EXPECT_THAT(schedule.start, IsEmpty());
  EXPECT_THAT(schedule.reasons, ElementsAre(Pair("c", "waiting for 1 cpu slot: 2 of 2 in use by jobs/a, jobs/b")));
}

TEST(SchedulerTest, OneFreeSlot_OneStartsAndTheOtherIsToldAboutIt) {
  const Schedule schedule = PlanSchedule({{"cpu", 1}}, {Waiting("b", 1), Waiting("c", 2)}, {}, kNow);
  EXPECT_THAT(schedule.start, ElementsAre("c"));
  EXPECT_THAT(schedule.reasons, ElementsAre(Pair("b", "waiting for 1 cpu slot: 1 of 1 in use by jobs/c")));
  EXPECT_THAT(schedule.queue, ElementsAre("b"));
}

TEST(SchedulerTest, RetryInTheFuture_WaitsAndHoldsNobodyUp) {
  WaitingJob retried = Waiting("first", 9);
  retried.retry_at = kNow + seconds(5);
  const Schedule schedule = PlanSchedule({{"cpu", 1}}, {retried, Waiting("second")}, {}, kNow);
  EXPECT_THAT(schedule.start, ElementsAre("second"));
  EXPECT_THAT(schedule.reasons, ElementsAre(Pair("first", "waiting until 00:00:05 UTC to try again")));
  EXPECT_THAT(schedule.queue, IsEmpty()) << "it waits for the clock, not for a slot";
  const Schedule later = PlanSchedule({{"cpu", 1}}, {retried, Waiting("second")}, {}, kNow + seconds(5));
  EXPECT_THAT(later.start, ElementsAre("first"));
}

TEST(SchedulerTest, LargeJobThatDoesNotFitYet_IsNotOvertaken) {
  WaitingJob large = Waiting("large", 1);
  large.slots = 2;
  const Schedule schedule = PlanSchedule({{"cpu", 2}}, {large, Waiting("small")}, {{"running", "cpu", 1}}, kNow);
  EXPECT_THAT(schedule.start, IsEmpty());
  EXPECT_EQ(schedule.reasons.at("large"), "waiting for 2 cpu slots: 1 of 2 in use by jobs/running");
}

TEST(SchedulerTest, JobThatNeverFits_SaysSoAndHoldsNobodyUp) {
  WaitingJob large = Waiting("large", 1);
  large.slots = 3;
  WaitingJob other = Waiting("other", 1);
  other.device = "cuda";
  const Schedule schedule = PlanSchedule({{"cpu", 2}}, {large, other, Waiting("small")}, {}, kNow);
  EXPECT_THAT(schedule.start, ElementsAre("small"));
  EXPECT_EQ(schedule.reasons.at("large"), "can't start here: needs 3 cpu slots, the server has 2");
  EXPECT_EQ(schedule.reasons.at("other"), "can't start here: needs 1 cuda slot, the server has 0");
}

TEST(SchedulerTest, ManyHolders_AreCounted) {
  std::vector<PlacedJob> placed;
  for (int i = 0; i < 8; ++i) placed.push_back({"j" + std::to_string(i), "cpu", 1});
  const Schedule schedule = PlanSchedule({{"cpu", 8}}, {Waiting("w")}, placed, kNow);
  EXPECT_EQ(schedule.reasons.at("w"),
            "waiting for 1 cpu slot: 8 of 8 in use by jobs/j0, jobs/j1, jobs/j2, jobs/j3, jobs/j4 and 3 more");
}

TEST(ParseDeviceSlotsTest, Texts_AreReadOrRefused) {
  const auto slots = ParseDeviceSlots("cpu:2");
  ASSERT_TRUE(slots.ok()) << slots.status();
  EXPECT_THAT(*slots, ElementsAre(Pair("cpu", 2)));
  for (const char* text : {"", "cpu", "cpu:", "cpu:x", "cpu:-1", "cpu:5000", ":2", "cpu:1,cpu:2", "gpu:1", "cpu:2,"}) {
    EXPECT_EQ(ParseDeviceSlots(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace temper
