// SPDX-License-Identifier: Apache-2.0
#include "worker/node/hang_watch.h"

#include <chrono>
#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace temper {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::HasSubstr;

class HangWatchTest : public testing::Test {
 protected:
  HangWatchTest() {
    policy_.set_step_minutes(1);
    policy_.set_other_minutes(60);
  }

  void Take(v1::RankReport::ReportCase report, double step_seconds = 0) { watch_->Take({report, step_seconds}, now_); }
  void TakeSteps(int count, double step_seconds) {
    for (int i = 0; i < count; ++i) {
      Take(v1::RankReport::kStepBegun);
      Take(v1::RankReport::kStep, step_seconds);
    }
  }
  HangWatch::TimePoint::duration Left() const { return watch_->deadline() - now_; }
  void Start() { watch_.emplace(policy_, now_); }

  v1::HangPolicy policy_;
  HangWatch::TimePoint now_{std::chrono::hours(5)};
  std::optional<HangWatch> watch_;
};

TEST_F(HangWatchTest, Deadline_BeforeTheFirstStepIsDone_IsThatOfOtherThings) {
  Start();
  EXPECT_EQ(Left(), minutes(60));
  now_ += minutes(50);
  Take(v1::RankReport::kPhase);
  EXPECT_EQ(Left(), minutes(60));
  Take(v1::RankReport::kStepBegun);  // it may compile, or allocate all memory
  EXPECT_EQ(Left(), minutes(60));
}

TEST_F(HangWatchTest, Deadline_StepsToldForAnEarlierGang_TheFirstOwnStepHasItsTime) {
  Start();
  Take(v1::RankReport::kStep, 0.5);
  Take(v1::RankReport::kStep, 0.5);
  Take(v1::RankReport::kStepBegun);
  EXPECT_EQ(Left(), minutes(60));
}

TEST_F(HangWatchTest, Deadline_InAStep_RunsFromItsBeginWhateverElseIsSaid) {
  Start();
  TakeSteps(3, 0.5);
  EXPECT_EQ(Left(), minutes(60));  // a validation, say
  Take(v1::RankReport::kStepBegun);
  EXPECT_EQ(Left(), minutes(1));
  now_ += seconds(20);
  Take(v1::RankReport::kCheckpoint);
  Take(v1::RankReport::kLog);
  EXPECT_EQ(Left(), seconds(40));
  EXPECT_THAT(watch_->Explain(now_), HasSubstr("a step has taken 20.0 s, and may take 60.0 s"));
  Take(v1::RankReport::kPhase);  // none was left
  EXPECT_EQ(Left(), minutes(60));
}

TEST_F(HangWatchTest, Deadline_SlowSteps_IsTenTimesTheMedianOfTheLastOnes) {
  Start();
  TakeSteps(2, 500);  // of long ago
  TakeSteps(63, 1);
  TakeSteps(65, 30);
  Take(v1::RankReport::kStepBegun);
  EXPECT_EQ(Left(), seconds(300));
}

TEST_F(HangWatchTest, Deadline_NoLimit_IsNever) {
  policy_.set_other_minutes(0);
  Start();
  EXPECT_EQ(watch_->deadline(), HangWatch::TimePoint::max());
  policy_.set_step_minutes(0);
  Start();
  TakeSteps(1, 0.5);
  Take(v1::RankReport::kStepBegun);
  EXPECT_EQ(watch_->deadline(), HangWatch::TimePoint::max());
}

TEST_F(HangWatchTest, Restart_GivesTheWholeTimeAgain) {
  Start();
  TakeSteps(1, 0.5);
  Take(v1::RankReport::kStepBegun);
  now_ += seconds(90);
  watch_->Restart(now_);
  EXPECT_EQ(Left(), minutes(1));
}

}  // namespace
}  // namespace temper
