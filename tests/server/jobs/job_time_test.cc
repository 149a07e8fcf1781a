// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/job_time.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <map>
#include <string>

namespace temper {
namespace {

using std::chrono::milliseconds;

class JobTimeTest : public testing::Test {
 protected:
  JobTimeTest() { Enter(v1::JOB_STATE_QUEUED, 0); }

  static WallTime At(double seconds) {
    return WallTime(milliseconds(1'000'000)) + milliseconds(static_cast<int64_t>(1000 * seconds));
  }
  void Enter(v1::JobState state, double time, bool lost = false) {
    SpendUntil(job, At(time), lost);
    job.set_state(state);
    if (state != v1::JOB_STATE_RUNNING) job.clear_phase();
  }
  void Enter(v1::Phase phase, double time) {
    SpendUntil(job, At(time));
    job.set_phase(phase);
  }
  void Step(int64_t number, double time, double seconds, double checkpoint = 0) {
    v1::StepMetrics step;
    step.set_step(number);
    step.set_seconds(seconds);
    step.mutable_phases()->set_checkpoint(checkpoint);
    SpendUntil(job, At(time));
    SpendStep(job, step);
  }
  // The categories that are not empty.
  std::map<std::string, double> Spent() const {
    std::map<std::string, double> spent;
    for (const auto& [category, seconds] : Categories(job.time_spent())) {
      if (seconds > 1e-9) spent[category] = std::round(1000 * seconds) / 1000;
    }
    return spent;
  }

  v1::Job job;
};

using Times = std::map<std::string, double>;

TEST_F(JobTimeTest, Life_EachPartHasItsTime) {
  Enter(v1::JOB_STATE_CHECKING, 1);
  Enter(v1::JOB_STATE_QUEUED, 3);
  Enter(v1::JOB_STATE_STARTING, 10);
  Enter(v1::JOB_STATE_RUNNING, 11);
  Enter(v1::PHASE_LOADING_MODEL, 12);
  Enter(v1::PHASE_TRAINING, 15);
  Step(1, 20, 4.5);
  v1::ValidationResult validation;
  validation.set_seconds(2);
  SpendUntil(job, At(22.5));
  SpendValidation(job, validation);
  Step(2, 30, 7, /*checkpoint=*/1);
  Enter(v1::PHASE_EXPORTING, 30);
  Enter(v1::PHASE_VERIFYING, 32);
  Enter(v1::JOB_STATE_STOPPING, 37);
  Enter(v1::JOB_STATE_SUCCEEDED, 38);
  EXPECT_EQ(Spent(), (Times{{"queued", 8},
                            {"checking", 2},
                            {"starting", 5},
                            {"training", 10.5},
                            {"validating", 2},
                            {"checkpointing", 1},
                            {"exporting", 7},
                            {"stopping", 1},
                            {"other", 1.5}}));
}

TEST_F(JobTimeTest, GangLost_ItsStepAndThoseTakenAgainAreLost) {
  Enter(v1::JOB_STATE_RUNNING, 0);
  Enter(v1::PHASE_TRAINING, 0);
  Step(1, 1, 1);
  Step(2, 2, 1);
  Enter(v1::JOB_STATE_QUEUED, 2.75, /*lost=*/true);
  Enter(v1::JOB_STATE_RUNNING, 3);
  Enter(v1::PHASE_TRAINING, 3);
  Step(2, 4, 1);
  Step(3, 5, 1);
  EXPECT_EQ(Spent(), (Times{{"training", 3}, {"lost", 1.75}, {"queued", 0.25}}));
}

TEST_F(JobTimeTest, StepsThatTheNextGangTells_WereNotLost) {
  Enter(v1::JOB_STATE_RUNNING, 0);
  Enter(v1::PHASE_TRAINING, 0);
  Step(1, 1, 1);
  Enter(v1::JOB_STATE_QUEUED, 5, /*lost=*/true);  // it was not heard of for four seconds
  Enter(v1::JOB_STATE_RUNNING, 6);
  Enter(v1::PHASE_LOADING_MODEL, 6);
  Step(2, 8, 1.25, /*checkpoint=*/0.25);
  Step(3, 8, 1);
  Enter(v1::PHASE_TRAINING, 9);
  Step(4, 10, 1);
  EXPECT_EQ(Spent(), (Times{{"training", 4}, {"checkpointing", 0.25}, {"lost", 1.75}, {"queued", 1}, {"starting", 3}}));
}

TEST_F(JobTimeTest, StepEndsWhileStopping_IsTraining) {
  Enter(v1::JOB_STATE_RUNNING, 0);
  Enter(v1::PHASE_TRAINING, 0);
  Enter(v1::JOB_STATE_STOPPING, 3);
  Step(1, 4, 4);
  Enter(v1::JOB_STATE_PAUSED, 5);
  EXPECT_EQ(Spent(), (Times{{"training", 4}, {"stopping", 1}}));
}

TEST_F(JobTimeTest, ClockThatGoesBack_SumStaysTheTimeThatPassed) {
  Enter(v1::JOB_STATE_RUNNING, 2);
  Enter(v1::PHASE_TRAINING, 2);
  Step(1, 1, 500);  // claims more than there was
  Step(2, 4, 500);
  Enter(v1::JOB_STATE_STOPPING, 3);
  Enter(v1::JOB_STATE_SUCCEEDED, 6);
  EXPECT_EQ(Spent(), (Times{{"queued", 2}, {"training", 2}, {"stopping", 2}}));
}

}  // namespace
}  // namespace temper
