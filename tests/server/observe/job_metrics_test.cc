// SPDX-License-Identifier: Apache-2.0
#include "server/observe/job_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include "absl/strings/str_cat.h"
#include "common/rpc/timestamp.h"

namespace temper {
namespace {

using std::chrono::minutes;
using testing::HasSubstr;
using testing::Not;

class JobMetricsTest : public testing::Test {
 protected:
  explicit JobMetricsTest(JobMetricsOptions options = {}) : metrics(registry, clock, options) {}

  static v1::Job Job(const std::string& id) {
    v1::Job job;
    job.set_name("jobs/" + id);
    job.mutable_spec()->mutable_model()->set_uri("/models/tiny");
    return job;
  }
  void Enter(const std::string& id, v1::JobState state, int64_t time = 1000) {
    v1::JobEvent event;
    event.mutable_time()->set_seconds(time);
    event.mutable_state()->set_state(state);
    metrics.OnEvent(Job(id), event);
  }
  void Step(const std::string& id, int64_t step) {
    v1::JobEvent event;
    event.mutable_step()->set_step(step);
    event.mutable_step()->set_loss(1.5);
    event.mutable_step()->set_tokens(100);
    event.mutable_step()->set_scored_tokens(40);
    event.mutable_step()->set_seconds(0.5);
    event.mutable_step()->set_mfu(0.25);
    event.mutable_step()->set_hfu(0.375);
    event.mutable_step()->set_grad_norm(2.5);
    event.mutable_step()->set_learning_rate(0.125);
    event.mutable_step()->set_padding_ratio(0.0625);
    metrics.OnEvent(Job(id), event);
  }
  std::string Page() {
    metrics.Refresh();
    return prometheus::TextSerializer().Serialize(registry.Collect());
  }

  prometheus::Registry registry;
  FakeClock clock;
  JobMetrics metrics;
};

TEST_F(JobMetricsTest, State_IsOneForTheStateOnly) {
  Enter("a", v1::JOB_STATE_QUEUED);
  Enter("a", v1::JOB_STATE_RUNNING);
  const std::string page = Page();
  EXPECT_THAT(page, HasSubstr("temper_job_state{job=\"a\",state=\"RUNNING\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("temper_job_state{job=\"a\",state=\"QUEUED\"} 0\n"));
  EXPECT_THAT(page, HasSubstr("temper_job_info{job=\"a\",method=\"sft\",model=\"/models/tiny\",name=\"\"} 1\n"));
  EXPECT_THAT(page, Not(HasSubstr("temper_train_step{")));
}

TEST_F(JobMetricsTest, Info_HasTheMethod) {
  const auto method_of = [this](const std::string& id, void (*set)(v1::Method&)) {
    v1::Job job = Job(id);
    set(*job.mutable_spec()->mutable_method());
    v1::JobEvent event;
    event.mutable_step()->set_step(1);
    metrics.OnEvent(job, event);
  };
  method_of("p", [](v1::Method& method) { method.mutable_preference(); });
  method_of("d", [](v1::Method& method) { method.mutable_distillation(); });
  method_of("r", [](v1::Method& method) { method.mutable_reward(); });
  const std::string page = Page();
  EXPECT_THAT(page, HasSubstr("temper_job_info{job=\"p\",method=\"preference\""));
  EXPECT_THAT(page, HasSubstr("temper_job_info{job=\"d\",method=\"distillation\""));
  EXPECT_THAT(page, HasSubstr("temper_job_info{job=\"r\",method=\"reward\""));
}

TEST_F(JobMetricsTest, Steps_SetGaugesAndCountTokens) {
  Step("a", 1);
  Step("a", 2);
  const std::string page = Page();
  EXPECT_THAT(page, HasSubstr("temper_train_step{job=\"a\"} 2\n"));
  EXPECT_THAT(page, HasSubstr("temper_train_loss{job=\"a\"} 1.5\n"));
  EXPECT_THAT(page, HasSubstr("temper_train_grad_norm{job=\"a\"} 2.5\n"));
  EXPECT_THAT(page, HasSubstr("temper_train_learning_rate{job=\"a\"} 0.125\n"));
  EXPECT_THAT(page, HasSubstr("temper_train_mfu_ratio{job=\"a\"} 0.25\n"));
  EXPECT_THAT(page, HasSubstr("temper_train_hfu_ratio{job=\"a\"} 0.375\n"));
  EXPECT_THAT(page, HasSubstr("temper_train_padding_ratio{job=\"a\"} 0.0625\n"));
  EXPECT_THAT(page, HasSubstr("temper_train_tokens_total{job=\"a\"} 200\n"));
  EXPECT_THAT(page, HasSubstr("temper_train_scored_tokens_total{job=\"a\"} 80\n"));
  EXPECT_THAT(page, HasSubstr("temper_train_step_seconds_count{job=\"a\"} 2\n"));
  EXPECT_THAT(page, HasSubstr("temper_train_step_seconds_sum{job=\"a\"} 1\n"));
}

TEST_F(JobMetricsTest, FiguresOfTheMethod_AreGauges) {
  v1::JobEvent event;
  event.mutable_step()->set_step(1);
  (*event.mutable_step()->mutable_objective())["rewards/margins"] = 0.25;
  metrics.OnEvent(Job("a"), event);
  (*event.mutable_step()->mutable_objective())["rewards/margins"] = 0.5;
  metrics.OnEvent(Job("a"), event);
  EXPECT_THAT(Page(), HasSubstr("temper_train_objective{figure=\"rewards/margins\",job=\"a\"} 0.5\n"));
}

TEST_F(JobMetricsTest, RanksOfAStep_AreComparedWithTheirMedian) {
  const auto step_of = [this](std::initializer_list<float> seconds) {
    v1::JobEvent event;
    event.mutable_step()->set_step(1);
    event.mutable_step()->mutable_rank_compute_seconds()->Add(seconds.begin(), seconds.end());
    metrics.OnEvent(Job("a"), event);
  };
  step_of({2, 4, 2, 6});
  std::string page = Page();
  EXPECT_THAT(page, HasSubstr("temper_train_rank_compute_ratio{job=\"a\",rank=\"1\"} 1.3333"));
  EXPECT_THAT(page, HasSubstr("temper_train_rank_compute_ratio{job=\"a\",rank=\"3\"} 2\n"));
  step_of({2, 1, 4});  // a gang of fewer ranks
  page = Page();
  EXPECT_THAT(page, HasSubstr("temper_train_rank_compute_ratio{job=\"a\",rank=\"2\"} 2\n"));
  EXPECT_THAT(page, Not(HasSubstr("rank=\"3\"")));
  step_of({});
  EXPECT_THAT(Page(), Not(HasSubstr("rank=")));
}

TEST_F(JobMetricsTest, SkippedStepsAndSentBytes_AreCounted) {
  v1::JobEvent event;
  for (int step = 1; step <= 3; ++step) {
    event.mutable_step()->set_step(step);
    event.mutable_step()->set_skipped(step != 2);
    event.mutable_step()->set_sent_bytes(1000);
    metrics.OnEvent(Job("a"), event);
  }
  EXPECT_THAT(Page(), HasSubstr("temper_train_skipped_steps_total{job=\"a\"} 2\n"));
  EXPECT_THAT(Page(), HasSubstr("temper_train_sent_bytes_total{job=\"a\"} 3000\n"));
}

TEST_F(JobMetricsTest, GangIsLaunched_WaitIsObserved) {
  Enter("a", v1::JOB_STATE_QUEUED, 1000);
  Enter("a", v1::JOB_STATE_STARTING, 1007);
  Enter("a", v1::JOB_STATE_RUNNING, 1010);
  EXPECT_THAT(Page(), HasSubstr("temper_queue_wait_seconds_sum 7\n"));
  EXPECT_THAT(Page(), HasSubstr("temper_queue_wait_seconds_count 1\n"));
}

TEST_F(JobMetricsTest, JobEnded_SeriesStayForAWhileAndGo) {
  Step("a", 1);
  Enter("a", v1::JOB_STATE_SUCCEEDED);
  Step("b", 1);
  clock.Advance(minutes(59));
  EXPECT_THAT(Page(), HasSubstr("temper_train_step{job=\"a\"}"));
  clock.Advance(minutes(1));
  EXPECT_THAT(Page(), Not(HasSubstr("job=\"a\"")));
  EXPECT_THAT(Page(), HasSubstr("temper_train_step{job=\"b\"}"));
}

TEST_F(JobMetricsTest, ExistingJob_ShowsItsFiguresButCountsNothing) {
  v1::Job job = Job("a");
  job.set_state(v1::JOB_STATE_QUEUED);
  job.mutable_create_time()->set_seconds(1000);
  job.mutable_latest_step()->set_step(7);
  job.mutable_latest_step()->set_tokens(100);
  metrics.AddExisting(job);
  EXPECT_THAT(Page(), HasSubstr("temper_train_step{job=\"a\"} 7\n"));
  EXPECT_THAT(Page(), HasSubstr("temper_train_tokens_total{job=\"a\"} 0\n"));
  Enter("a", v1::JOB_STATE_STARTING, 1100);
  EXPECT_THAT(Page(), HasSubstr("temper_queue_wait_seconds_sum 100\n"));
}

TEST_F(JobMetricsTest, ExistingJobThatTakesStepsAgain_CountsOnlyNewOnes) {
  v1::Job job = Job("a");
  job.mutable_latest_step()->set_step(7);  // after it went back from step 9
  job.mutable_time_spent()->set_highest_step(9);
  metrics.AddExisting(job);
  for (int64_t step = 8; step <= 10; ++step) Step("a", step);
  EXPECT_THAT(Page(), HasSubstr("temper_train_tokens_total{job=\"a\"} 100\n"));
  EXPECT_THAT(Page(), HasSubstr("temper_train_step_seconds_count{job=\"a\"} 1\n"));
}

TEST_F(JobMetricsTest, Time_GoesOnWhileAJobWaits) {
  v1::Job job = Job("a");
  job.set_state(v1::JOB_STATE_QUEUED);
  job.mutable_time_spent()->set_lost(3);
  *job.mutable_time_spent()->mutable_until() = ToTimestamp(clock.Wall());
  metrics.AddExisting(job);
  clock.Advance(minutes(2));
  EXPECT_THAT(Page(), HasSubstr("temper_job_time_seconds_total{category=\"queued\",job=\"a\"} 120\n"));
  EXPECT_THAT(Page(), HasSubstr("temper_job_time_seconds_total{category=\"lost\",job=\"a\"} 3\n"));

  job.set_state(v1::JOB_STATE_RUNNING);
  job.set_phase(v1::PHASE_TRAINING);
  job.mutable_time_spent()->set_queued(121);
  *job.mutable_time_spent()->mutable_until() = ToTimestamp(clock.Wall());
  metrics.OnEvent(job, v1::JobEvent());
  clock.Advance(minutes(2));
  EXPECT_THAT(Page(), HasSubstr("temper_job_time_seconds_total{category=\"queued\",job=\"a\"} 121\n"));
  EXPECT_THAT(Page(), HasSubstr("temper_job_time_seconds_total{category=\"other\",job=\"a\"} 0\n"));
}

TEST_F(JobMetricsTest, Phases_AddUp) {
  v1::JobEvent event;
  for (int step = 1; step <= 2; ++step) {
    event.mutable_step()->set_step(step);
    event.mutable_step()->mutable_phases()->set_forward(0.5);
    metrics.OnEvent(Job("a"), event);
  }
  EXPECT_THAT(Page(), HasSubstr("temper_train_phase_seconds_total{job=\"a\",phase=\"forward\"} 1\n"));
}

TEST_F(JobMetricsTest, Checkpoint_ObservesItsPauseAndItsCommit) {
  v1::JobEvent event;
  event.mutable_checkpoint()->set_step(50);
  event.mutable_checkpoint()->set_pause_seconds(0.25);
  event.mutable_checkpoint()->set_commit_seconds(2);
  metrics.OnEvent(Job("a"), event);
  // Of one whose gang did not live to tell, there are no times.
  event.mutable_checkpoint()->Clear();
  event.mutable_checkpoint()->set_step(100);
  metrics.OnEvent(Job("a"), event);
  const std::string page = Page();
  EXPECT_THAT(page, HasSubstr("temper_checkpoint_last_committed_step{job=\"a\"} 100\n"));
  EXPECT_THAT(page, HasSubstr("temper_checkpoint_seconds_count{job=\"a\",stage=\"pause\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("temper_checkpoint_seconds_sum{job=\"a\",stage=\"pause\"} 0.25\n"));
  EXPECT_THAT(page, HasSubstr("temper_checkpoint_seconds_sum{job=\"a\",stage=\"commit\"} 2\n"));
}

TEST_F(JobMetricsTest, Resumption_CountsTheStepsThatWentDownWithAGang) {
  v1::JobEvent end, resumption;
  end.mutable_state()->set_state(v1::JOB_STATE_STOPPING);
  end.mutable_state()->set_cause(v1::FAILURE_CAUSE_RANK_LOST);
  resumption.mutable_resumption()->set_lost_steps(7);
  for (int gang = 1; gang <= 2; ++gang) {
    metrics.OnEvent(Job("a"), end);
    metrics.OnEvent(Job("a"), resumption);
  }
  EXPECT_THAT(Page(), HasSubstr("temper_lost_steps_total{cause=\"RANK_LOST\",job=\"a\"} 14\n"));
}

class FewJobsTest : public JobMetricsTest {
 protected:
  FewJobsTest() : JobMetricsTest({.max_jobs = 2}) {}
};

TEST_F(FewJobsTest, TooManyJobs_TheOneThatEndedFirstGoes) {
  Enter("a", v1::JOB_STATE_FAILED);
  clock.Advance(minutes(1));
  Enter("b", v1::JOB_STATE_SUCCEEDED);
  Enter("c", v1::JOB_STATE_QUEUED);
  EXPECT_THAT(Page(), Not(HasSubstr("job=\"a\"")));
  EXPECT_THAT(Page(), HasSubstr("job=\"b\""));
  EXPECT_THAT(Page(), HasSubstr("job=\"c\""));
}

TEST_F(FewJobsTest, AllLive_TheNewOneHasNoSeries) {
  for (const char* id : {"a", "b", "c"}) Enter(id, v1::JOB_STATE_RUNNING);
  Step("c", 1);
  EXPECT_THAT(Page(), Not(HasSubstr("job=\"c\"")));
  EXPECT_THAT(Page(), HasSubstr("job=\"a\""));
}

TEST_F(JobMetricsTest, LongLabel_IsCutBetweenCharacters) {
  v1::Job job = Job("a");
  std::string name;
  for (int i = 0; i < 150; ++i) name += "é";
  job.mutable_spec()->set_display_name(absl::StrCat("x", name));
  metrics.AddExisting(job);
  const std::string page = Page();
  const size_t begin = page.find("name=\"x") + 6;
  const std::string label = page.substr(begin, page.find('"', begin) - begin);
  EXPECT_EQ(label, absl::StrCat("x", name.substr(0, 198)));
}

}  // namespace
}  // namespace temper
