// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/job_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "common/digest.h"
#include "common/rpc/status.h"
#include "common/rpc/timestamp.h"
#include "common/storage/job_layout.h"
#include "common/storage/publication.h"
#include "server/sqlite/sqlite.h"
#include "tests/common/scratch_directory.h"
#include "tests/server/jobs/fake_launcher.h"
#include "tests/server/jobs/valid_spec.h"

namespace temper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr char kUuid[] = "123e4567-e89b-42d3-a456-426614174000";

class JobControllerTest : public testing::Test {
 protected:
  JobControllerTest() { Boot(); }

  // A server process begins: what is in memory is lost, the disk and the gangs stay.
  void Boot() {
    controller.reset();
    store.reset();
    auto opened = JobStore::Open(scratch.path() / "data");
    ASSERT_TRUE(opened.ok()) << opened.status();
    store = *std::move(opened);
    JobControllerOptions options;
    options.runs_dir = "/runs";
    options.slots = slots;
    options.max_log_events = max_log_events;
    options.max_preflights = max_preflights;
    options.max_unfinished = max_unfinished;
    options.keep_ended = keep_ended;
    server_clock = std::make_unique<SteadyClock>(clock);
    controller = std::make_unique<JobController>(*store, launcher, *server_clock, options);
    const absl::Status recovered = controller->Recover();
    ASSERT_TRUE(recovered.ok()) << recovered;
  }

  // Rounds until nothing is left to do.
  void Settle() {
    for (int i = 0; i < 4; ++i) controller->Reconcile("127.0.0.1:8470");
  }

  v1::CreateJobRequest Request(const std::string& id) {
    v1::CreateJobRequest request;
    *request.mutable_job()->mutable_spec() = ValidSpec();
    request.set_job_id(id);
    return request;
  }

  void Create(const std::string& id, int priority = 0) {
    v1::CreateJobRequest request = Request(id);
    request.mutable_job()->mutable_spec()->set_priority(priority);
    const auto job = controller->Create(request);
    ASSERT_TRUE(job.ok()) << job.status();
    clock.Advance(seconds(1));
  }

  v1::Job Get(const std::string& id) {
    const auto job = controller->Get("jobs/" + id);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *job : v1::Job();
  }

  std::string StateOf(const std::string& id) { return StateName(Get(id).state()); }

  v1::Hello Hello(const std::string& id) {
    v1::Hello hello;
    hello.set_job("jobs/" + id);
    hello.set_incarnation("1");
    for (const GangSpec& launch : launcher.launches) {
      if (launch.key.job_id != id) continue;
      hello.set_epoch(launch.key.epoch);
      hello.set_token(launch.token);
    }
    return hello;
  }

  int64_t Attach(const std::string& id) {
    const auto attachment = controller->AttachNode(
        Hello(id), [this](const v1::AttachResponse& command) { stops.push_back(command.stop()); });
    EXPECT_TRUE(attachment.ok()) << attachment.status();
    sequence = 0;
    return attachment.ok() ? attachment->id : 0;
  }

  // Creates a job and brings it to RUNNING.
  int64_t Run(const std::string& id) {
    Create(id);
    Settle();
    return Attach(id);
  }

  // The rank's next report.
  v1::RankReport Report() {
    v1::RankReport report;
    report.set_sequence(++sequence);
    return report;
  }
  v1::RankReport Step(int64_t step) {
    v1::RankReport report = Report();
    report.mutable_step()->set_step(step);
    report.mutable_step()->set_total_steps(10);
    return report;
  }
  v1::RankReport Log(const std::string& text, v1::LogSeverity severity = v1::LOG_SEVERITY_INFO) {
    v1::RankReport report = Report();
    report.mutable_log()->set_text(text);
    report.mutable_log()->set_severity(severity);
    return report;
  }
  v1::RankReport Export() {
    v1::RankReport report = Report();
    report.mutable_export_()->set_uri("file:///out/a/export-e0001");
    return report;
  }
  v1::RankReport End(v1::FailureCause cause = v1::FAILURE_CAUSE_UNSPECIFIED, const std::string& message = "") {
    v1::RankReport report = Report();
    report.mutable_end()->set_cause(cause);
    report.mutable_end()->set_message(message);
    return report;
  }

  void Send(int64_t attachment, const std::vector<v1::RankReport>& reports) {
    const auto acks = controller->HandleReports(attachment, reports);
    ASSERT_TRUE(acks.ok()) << acks.status();
    ASSERT_THAT(*acks, SizeIs(1));
    EXPECT_EQ(acks->front().sequence(), reports.back().sequence());
  }

  std::vector<v1::JobEvent> Events(const std::string& id) {
    const auto page = controller->Events("jobs/" + id, 0, 100'000);
    EXPECT_TRUE(page.ok()) << page.status();
    return page.ok() ? page->events : std::vector<v1::JobEvent>();
  }

  // The states that the job went through, as its events tell.
  std::vector<std::string> History(const std::string& id) {
    std::vector<std::string> states;
    for (const v1::JobEvent& event : Events(id)) {
      if (event.has_state()) states.push_back(StateName(event.state().state()));
    }
    return states;
  }

  std::vector<int64_t> Steps(const std::string& id) {
    std::vector<int64_t> steps;
    for (const v1::JobEvent& event : Events(id)) {
      if (event.has_step()) steps.push_back(event.step().step());
    }
    return steps;
  }

  std::vector<std::string> LogOf(const std::string& id) {
    std::vector<std::string> lines;
    for (const v1::JobEvent& event : Events(id)) {
      if (event.has_log()) lines.push_back(event.log().text());
    }
    return lines;
  }

  ScratchDirectory scratch;
  FakeClock clock;  // the machine's
  std::unique_ptr<SteadyClock> server_clock;
  FakeLauncher launcher;
  DeviceSlots slots{{"cpu", 2}};
  int64_t max_log_events = 20'000;
  int max_preflights = 0;
  size_t max_unfinished = 10'000;
  std::chrono::hours keep_ended{0};
  std::unique_ptr<JobStore> store;
  std::unique_ptr<JobController> controller;
  int64_t sequence = 0;
  std::vector<v1::Stop> stops;
};

// --- a job's life ---

TEST_F(JobControllerTest, Job_FromCreateToExport_Succeeds) {
  const int64_t node = Run("a");
  ASSERT_THAT(launcher.launches, SizeIs(1));
  EXPECT_EQ(launcher.launches[0].server_address, "127.0.0.1:8470");
  EXPECT_EQ(launcher.launches[0].run_dir, "/runs/a/e1");
  EXPECT_EQ(StateOf("a"), "RUNNING");

  v1::RankReport phase = Report();
  phase.mutable_phase()->set_phase(v1::PHASE_TRAINING);
  phase.mutable_phase()->set_total_steps(10);
  Send(node, {phase, Step(1), Log("hello"), Step(2)});
  EXPECT_EQ(Get("a").phase(), v1::PHASE_TRAINING);
  EXPECT_EQ(Get("a").latest_step().step(), 2);
  EXPECT_EQ(Get("a").total_steps(), 10);

  Send(node, {Export(), End()});
  Settle();
  EXPECT_EQ(StateOf("a"), "STOPPING") << "its processes still exist";
  EXPECT_THAT(launcher.stops, IsEmpty()) << "it goes by itself";
  launcher.Exit({"a", 1});
  Settle();
  const v1::Job job = Get("a");
  EXPECT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.export_uri(), "file:///out/a/export-e0001");
  EXPECT_TRUE(job.has_start_time() && job.has_end_time() && job.has_create_time());
  EXPECT_EQ(job.phase(), v1::PHASE_UNSPECIFIED);
  EXPECT_THAT(History("a"), ElementsAre("QUEUED", "STARTING", "RUNNING", "STOPPING", "SUCCEEDED"));

  const std::vector<v1::JobEvent> events = Events("a");
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].sequence(), static_cast<int64_t>(i) + 1);
  EXPECT_EQ(job.last_sequence(), static_cast<int64_t>(events.size()));
}

// --- preflight ---

v1::RankReport PreflightReportOf(v1::RankReport report) {
  report.mutable_preflight()->set_total_steps(10);
  report.mutable_preflight()->set_backend("native");
  return report;
}

TEST_F(JobControllerTest, Preflight_ComesBeforeTheQueueAndTakesNoSlot) {
  max_preflights = 1;
  slots = {{"cpu", 0}};
  Boot();
  Create("a");
  Create("b");
  Settle();
  ASSERT_THAT(launcher.launches, SizeIs(1)) << "one at a time";
  EXPECT_EQ(launcher.launches[0].run_dir, "/runs/a/e0");
  EXPECT_EQ(StateOf("a"), "CHECKING");
  EXPECT_EQ(StateOf("b"), "QUEUED");
  EXPECT_THAT(Get("b").reason(), HasSubstr("waits for its preflight"));
  const auto attachment = controller->AttachNode(Hello("a"), [](const v1::AttachResponse&) {});
  ASSERT_TRUE(attachment.ok()) << attachment.status();
  EXPECT_TRUE(attachment->assignment.preflight());
  EXPECT_EQ(attachment->assignment.epoch(), 0);
  sequence = 0;
  Send(attachment->id, {PreflightReportOf(Report()), End()});
  launcher.Exit({"a", 0});
  Settle();
  EXPECT_THAT(History("a"), ElementsAre("QUEUED", "CHECKING", "STOPPING", "QUEUED"));
  EXPECT_EQ(Get("a").preflight().backend(), "native");
  EXPECT_EQ(Get("a").epoch(), 0);
  EXPECT_FALSE(Get("a").has_start_time());
  EXPECT_THAT(Get("a").reason(), HasSubstr("needs 1 cpu slot, the server has 0"));
  EXPECT_EQ(StateOf("b"), "CHECKING");
}

TEST_F(JobControllerTest, Preflight_ThatIsSilent_IsGivenUpAndTheJobGoesOn) {
  max_preflights = 1;
  Boot();
  Create("a");
  Settle();
  clock.Advance(seconds(121));
  Settle();
  EXPECT_EQ(StateOf("a"), "STOPPING");
  launcher.Exit({"a", 0});
  Settle();
  EXPECT_EQ(StateOf("a"), "STARTING");
  EXPECT_EQ(Get("a").restarts(), 0);
  EXPECT_EQ(launcher.launches.back().run_dir, "/runs/a/e1");
}

TEST_F(JobControllerTest, PreflightOnly_EndsWithItsReport) {
  Create("before");  // no preflight, and a slot
  v1::CreateJobRequest request = Request("a");
  request.set_preflight_only(true);
  request.set_request_id("123e4567-e89b-42d3-a456-426614174000");
  ASSERT_TRUE(controller->Create(request).ok());
  EXPECT_TRUE(controller->Create(request)->preflight_only());
  request.set_preflight_only(false);
  EXPECT_EQ(ReasonOf(controller->Create(request).status()), "REQUEST_ID_REUSED");
  Settle();
  EXPECT_EQ(StateOf("a"), "CHECKING");
  EXPECT_EQ(ReasonOf(controller->Pause("jobs/a").status()), "PREFLIGHT_ONLY");
  const int64_t node = Attach("a");
  Send(node, {PreflightReportOf(Report()), End()});
  launcher.Exit({"a", 0});
  Settle();
  EXPECT_EQ(StateOf("a"), "SUCCEEDED");
  EXPECT_EQ(Get("a").preflight().total_steps(), 10);
  EXPECT_TRUE(controller->Delete("jobs/a").ok());
}

TEST_F(JobControllerTest, Verify_EndsWithItsVerdict) {
  v1::CreateJobRequest request;
  request.set_job_id("a");
  request.mutable_job()->mutable_spec()->mutable_model()->set_uri("/models/tiny");
  request.mutable_verify()->set_layers(true);
  request.set_request_id("123e4567-e89b-42d3-a456-426614174000");
  ASSERT_TRUE(controller->Create(request).ok());
  EXPECT_EQ(controller->Create(request)->verify().dtype(), "fp32");
  request.mutable_verify()->set_gradients(true);
  EXPECT_EQ(ReasonOf(controller->Create(request).status()), "REQUEST_ID_REUSED");
  Settle();
  EXPECT_EQ(StateOf("a"), "CHECKING");
  EXPECT_EQ(Get("a").spec().display_name(), "tiny");
  EXPECT_EQ(ReasonOf(controller->Pause("jobs/a").status()), "PREFLIGHT_ONLY");
  const auto attachment = controller->AttachNode(Hello("a"), [](const v1::AttachResponse&) {});
  ASSERT_TRUE(attachment.ok()) << attachment.status();
  EXPECT_FALSE(attachment->assignment.preflight());
  EXPECT_TRUE(attachment->assignment.verify().layers());
  EXPECT_EQ(attachment->assignment.spec().model().uri(), "/models/tiny");
  v1::RankReport verdict = Report();
  verdict.mutable_verdict()->add_reasons("largest KL is 1");
  Send(attachment->id, {verdict, End()});
  launcher.Exit({"a", 0});
  Settle();
  EXPECT_EQ(StateOf("a"), "SUCCEEDED") << "it found out what it was asked";
  EXPECT_FALSE(Get("a").verdict().passed());
  EXPECT_THAT(Get("a").verdict().reasons(), ElementsAre("largest KL is 1"));
}

TEST_F(JobControllerTest, Verify_WithWhatItDoesNotRead_IsRefused) {
  v1::CreateJobRequest request = Request("a");
  request.mutable_verify()->set_dtype("fp64");
  EXPECT_THAT(controller->Create(request).status().message(), HasSubstr("verify.dtype"));
  request.mutable_verify()->set_dtype("bf16");
  request.mutable_verify()->set_gradients(true);
  EXPECT_THAT(controller->Create(request).status().message(), HasSubstr("verify.gradients"));
  request.mutable_verify()->set_gradients(false);
  EXPECT_THAT(controller->Create(request).status().message(), HasSubstr("give the model alone"));
  request.mutable_job()->mutable_spec()->Clear();
  EXPECT_THAT(controller->Create(request).status().message(), HasSubstr("model.uri"));
}

TEST_F(JobControllerTest, Preflight_OfAServerThatDied_IsAdopted) {
  max_preflights = 1;
  Boot();
  Create("a");
  Settle();
  const int64_t node = Attach("a");
  EXPECT_NE(node, 0);
  Boot();
  Settle();
  EXPECT_EQ(StateOf("a"), "CHECKING");
  Send(Attach("a"), {PreflightReportOf(Report()), End()});
  launcher.Exit({"a", 0});
  Settle();
  EXPECT_EQ(StateOf("a"), "STARTING");
  EXPECT_TRUE(Get("a").has_preflight());
}

TEST_F(JobControllerTest, UserError_IsFinal) {
  const int64_t node = Run("a");
  Send(node, {End(v1::FAILURE_CAUSE_USER_INPUT, "no config.json in /models/tiny")});
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(StateOf("a"), "FAILED");
  EXPECT_EQ(Get("a").cause(), v1::FAILURE_CAUSE_USER_INPUT);
  EXPECT_EQ(Get("a").reason(), "no config.json in /models/tiny");
  EXPECT_THAT(launcher.launches, SizeIs(1));
}

TEST_F(JobControllerTest, LostRank_IsRestartedAfterABackOffAndGivenUpInTheEnd) {
  Create("a");
  for (int epoch = 1; epoch <= 4; ++epoch) {
    Settle();
    ASSERT_THAT(launcher.launches, SizeIs(epoch));
    Attach("a");
    launcher.Exit({"a", epoch});
    Settle();
    if (epoch == 4) break;
    EXPECT_EQ(StateOf("a"), "QUEUED");
    EXPECT_EQ(Get("a").restarts(), epoch);
    EXPECT_THAT(Get("a").reason(), HasSubstr("RANK_LOST: exit status 9; waiting until "));
    clock.Advance(seconds(5 << (epoch - 1)) - milliseconds(1));
    Settle();
    EXPECT_THAT(launcher.launches, SizeIs(epoch)) << "too early";
    clock.Advance(milliseconds(1));
  }
  EXPECT_EQ(StateOf("a"), "FAILED");
  EXPECT_EQ(Get("a").cause(), v1::FAILURE_CAUSE_RANK_LOST);
  EXPECT_EQ(Get("a").epoch(), 4);
}

TEST_F(JobControllerTest, RestartedGang_TakesStepsAgain) {
  int64_t node = Run("a");
  Send(node, {Step(1), Step(2)});
  launcher.Exit({"a", 1});
  Settle();
  clock.Advance(seconds(5));
  Settle();
  EXPECT_EQ(Get("a").latest_step().step(), 2);
  node = Attach("a");
  Send(node, {Step(1)});
  EXPECT_EQ(Get("a").latest_step().step(), 1);
}

TEST_F(JobControllerTest, LaunchError_IsRetriedAndItsTextIsTold) {
  launcher.launch_error = absl::NotFoundError("can't start /bin/temper-worker: No such file or directory");
  Create("a");
  Settle();
  EXPECT_EQ(StateOf("a"), "QUEUED");
  EXPECT_THAT(Get("a").reason(), HasSubstr("restart 1 of 3 after LAUNCH: can't start /bin/temper-worker"));
  launcher.launch_error = absl::OkStatus();
  clock.Advance(seconds(5));
  Settle();
  Attach("a");
  EXPECT_EQ(StateOf("a"), "RUNNING");
}

TEST_F(JobControllerTest, ExplanationOfTheLauncher_CountsWhenTheRankSaidNothing) {
  Run("a");
  launcher.Exit({"a", 1}, FailureCause::kUserInput, "data file is empty");
  Settle();
  EXPECT_EQ(StateOf("a"), "FAILED");
  EXPECT_EQ(Get("a").reason(), "data file is empty");
}

TEST_F(JobControllerTest, SigtermFromOutside_IsFree) {
  const int64_t node = Run("a");
  v1::RankReport end = End();
  end.mutable_end()->set_stopped(true);
  Send(node, {end});
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(Get("a").restarts(), 0);
  EXPECT_THAT(launcher.launches, SizeIs(2)) << "at once";
}

// --- limits ---

TEST_F(JobControllerTest, GangThatNeverAttaches_IsStoppedAndRetried) {
  Create("a");
  Settle();
  clock.Advance(seconds(121));
  Settle();
  EXPECT_EQ(StateOf("a"), "STOPPING");
  EXPECT_THAT(launcher.stops, ElementsAre(GangKey{"a", 1}));
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_THAT(Get("a").reason(), HasSubstr("LAUNCH: the gang did not report within 120 s"));
}

TEST_F(JobControllerTest, SilentNode_IsAHang) {
  const int64_t node = Run("a");
  clock.Advance(seconds(119));
  controller->Heartbeat(node);
  clock.Advance(seconds(119));
  Settle();
  EXPECT_EQ(StateOf("a"), "RUNNING");
  clock.Advance(seconds(2));
  Settle();
  EXPECT_EQ(StateOf("a"), "STOPPING");
  EXPECT_THAT(stops, SizeIs(1));
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_THAT(Get("a").reason(), HasSubstr("HANG: no word from the gang for 120 s"));
}

TEST_F(JobControllerTest, EndedGangThatDoesNotExit_IsStopped) {
  const int64_t node = Run("a");
  Send(node, {Export(), End()});
  clock.Advance(seconds(16));
  Settle();
  EXPECT_THAT(launcher.stops, ElementsAre(GangKey{"a", 1}));
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(StateOf("a"), "SUCCEEDED");
}

TEST_F(JobControllerTest, WallClockSetBack_FiresNoLimit) {
  Run("a");
  clock.SetWall(clock.Wall() - std::chrono::hours(24));
  Settle();
  EXPECT_EQ(StateOf("a"), "RUNNING");
}

TEST_F(JobControllerTest, WallClockIsSet_ARetryComesWhenItWouldHave) {
  for (const std::chrono::hours by : {std::chrono::hours(-24), std::chrono::hours(24)}) {
    const std::string id = by.count() < 0 ? "back" : "ahead";
    Run(id);
    launcher.Exit({id, 1});
    Settle();
    ASSERT_EQ(StateOf(id), "QUEUED");
    clock.SetWall(clock.Wall() + by);
    clock.Advance(seconds(4));
    Settle();
    EXPECT_EQ(StateOf(id), "QUEUED");
    clock.Advance(seconds(2));
    Settle();
    EXPECT_EQ(StateOf(id), "STARTING");
  }
}

TEST_F(JobControllerTest, WallClockSetBackBetweenServers_ARetryWaitsForTheLongestBackoffAtMost) {
  Run("a");
  launcher.Exit({"a", 1});
  Settle();
  clock.SetWall(clock.Wall() - std::chrono::hours(24));
  Boot();
  clock.Advance(RetryPolicy().longest_backoff + seconds(1));
  Settle();
  EXPECT_EQ(StateOf("a"), "STARTING");
}

TEST_F(JobControllerTest, WallClockIsSet_TimeSpentIsTheTimeThatPassed) {
  Create("a");
  clock.SetWall(clock.Wall() + std::chrono::hours(24 * 365));
  clock.Advance(seconds(9));
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  const v1::Job job = Get("a");
  EXPECT_NEAR(job.time_spent().queued(), 10, 0.01);
  EXPECT_EQ(FromTimestamp(job.end_time()) - FromTimestamp(job.create_time()), seconds(10));
}

// What a watcher reads goes forward, whatever the clocks of nodes and of an earlier server said.
TEST_F(JobControllerTest, ClocksOfNodesAreWrong_EventsHaveTheServersTimes) {
  const int64_t node = Run("a");
  clock.Advance(seconds(60));
  const WallTime now = server_clock->Wall();
  v1::RankReport ahead = Step(1), behind = Step(2), old_node = Step(3), old_node_behind = Log("late");
  *ahead.mutable_time() = ToTimestamp(now + std::chrono::hours(5));
  ahead.mutable_age()->set_seconds(3);
  *behind.mutable_time() = ToTimestamp(now - std::chrono::hours(5));
  behind.mutable_age()->set_nanos(500'000'000);
  *old_node.mutable_time() = ToTimestamp(now + std::chrono::hours(5));
  *old_node_behind.mutable_time() = ToTimestamp(now - std::chrono::hours(5));
  Send(node, {ahead, behind, old_node, old_node_behind});
  const std::vector<v1::JobEvent> events = Events("a");
  ASSERT_GE(events.size(), 4);
  const auto time = [&](size_t from_the_end) { return FromTimestamp(events[events.size() - from_the_end].time()); };
  EXPECT_EQ(time(4), now - seconds(3));
  EXPECT_EQ(time(3), now - milliseconds(500));
  EXPECT_EQ(time(2), now);
  EXPECT_EQ(time(1), now);
}

TEST_F(JobControllerTest, WallClockSetBackBetweenServers_EventsGoForward) {
  const int64_t node = Run("a");
  clock.Advance(seconds(60));
  Send(node, {Step(1)});
  clock.SetWall(clock.Wall() - std::chrono::hours(1));
  Boot();
  Settle();
  const auto again = controller->AttachNode(Hello("a"), [](const v1::AttachResponse&) {});
  ASSERT_TRUE(again.ok()) << again.status();
  v1::RankReport late = Step(2);
  late.mutable_age()->set_seconds(7);
  Send(again->id, {late, Log("and on")});
  launcher.Exit({"a", 1});
  Settle();
  WallTime newest{};
  for (const v1::JobEvent& event : Events("a")) {
    EXPECT_GE(FromTimestamp(event.time()), newest) << event.ShortDebugString();
    newest = FromTimestamp(event.time());
  }
}

TEST_F(JobControllerTest, Gang_IsToldWhenTheJobWasCreated) {
  Run("a");
  const v1::Job job = Get("a");
  clock.Advance(std::chrono::hours(30));
  const auto again = controller->AttachNode(Hello("a"), [](const v1::AttachResponse&) {});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(FromTimestamp(again->assignment.create_time()), FromTimestamp(job.create_time()));
}

// --- the queue ---

TEST_F(JobControllerTest, Slots_AreNeverOverbooked) {
  for (const char* id : {"a", "b", "c"}) Create(id);
  Settle();
  EXPECT_THAT(launcher.running, ElementsAre(GangKey{"a", 1}, GangKey{"b", 1}));
  EXPECT_EQ(Get("c").reason(), "waiting for 1 cpu slot: 2 of 2 in use by jobs/a, jobs/b");
  EXPECT_THAT(LogOf("c"), ElementsAre("waiting for 1 cpu slot: 2 of 2 in use by jobs/a, jobs/b"));
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  Settle();
  EXPECT_THAT(launcher.launches, SizeIs(2)) << "the slot is free only when the processes are gone";
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_THAT(launcher.running, ElementsAre(GangKey{"b", 1}, GangKey{"c", 1}));
}

TEST_F(JobControllerTest, HigherPriority_StartsFirst) {
  slots = {{"cpu", 1}};
  Boot();
  Create("a");
  Settle();
  Create("low", -1);
  Create("high", 5);
  launcher.Exit({"a", 1}, FailureCause::kUserInput, "no");
  Settle();
  EXPECT_EQ(StateOf("high"), "STARTING");
  EXPECT_EQ(StateOf("low"), "QUEUED");
}

// --- create ---

TEST_F(JobControllerTest, Create_FillsInDefaultsAndQueues) {
  const auto job = controller->Create(Request("my-job"));
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->name(), "jobs/my-job");
  EXPECT_EQ(job->state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(job->target(), v1::JOB_TARGET_RUN);
  EXPECT_EQ(job->spec().training().tokens_per_step(), 4096);
  EXPECT_EQ(job->last_sequence(), 1);
}

TEST_F(JobControllerTest, Create_WithoutId_ChoosesOneFromTheName) {
  v1::CreateJobRequest request = Request("");
  request.mutable_job()->mutable_spec()->set_display_name("SmolLM2 135M (très bon)");
  const auto job = controller->Create(request);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_THAT(job->name(), testing::MatchesRegex("jobs/smollm2-135m-tr-s-bon-[2-9a-z]{6}"));
  EXPECT_NE(controller->Create(request)->name(), job->name());
}

TEST_F(JobControllerTest, Create_ValidateOnly_CreatesNothing) {
  v1::CreateJobRequest request = Request("a");
  request.set_validate_only(true);
  const auto job = controller->Create(request);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->spec().training().tokens_per_step(), 4096);
  EXPECT_EQ(controller->Get("jobs/a").status().code(), absl::StatusCode::kNotFound);
  request.mutable_job()->mutable_spec()->clear_output();
  EXPECT_EQ(controller->Create(request).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(JobControllerTest, Create_BadRequests_NameTheField) {
  const auto field_of = [this](const v1::CreateJobRequest& request) {
    const auto job = controller->Create(request);
    EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
    const auto violations = FieldViolationsOf(job.status());
    return violations.empty() ? "" : violations.front().field;
  };
  EXPECT_EQ(field_of({}), "job.spec");
  for (const std::string& id : {std::string("Upper"), std::string("-a"), std::string("a-"), std::string("a/b"),
                                std::string("a.b"), std::string(64, 'a'), std::string("ä")}) {
    EXPECT_EQ(field_of(Request(id)), "job_id") << id;
  }
  v1::CreateJobRequest request = Request("a");
  request.set_request_id("not a uuid");
  EXPECT_EQ(field_of(request), "request_id");
}

TEST_F(JobControllerTest, Create_SpecThatIsTooLarge_IsRefused) {
  v1::CreateJobRequest request = Request("a");
  (*request.mutable_job()->mutable_spec()->mutable_labels())["note"] = std::string(256 << 10, 'x');
  const auto job = controller->Create(request);
  EXPECT_EQ(job.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(job.status().message()), HasSubstr("bytes, and may have 262144"));
}

TEST_F(JobControllerTest, Create_TooManyThatHaveNotEnded_IsRefusedUntilOneEnds) {
  max_unfinished = 2;
  Boot();
  Create("a");
  Create("b");
  const auto third = controller->Create(Request("c"));
  EXPECT_EQ(third.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(third.status().message()), HasSubstr("2 (temper-server --max-unfinished-jobs)"));
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  EXPECT_TRUE(controller->Create(Request("c")).ok());
}

TEST_F(JobControllerTest, Create_IdTaken_AlreadyExists) {
  Create("a");
  const auto again = controller->Create(Request("a"));
  EXPECT_EQ(again.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(again.status()), "JOB_EXISTS");
}

TEST_F(JobControllerTest, Create_SameRequestId_SameJobOnce) {
  v1::CreateJobRequest request = Request("");
  request.set_request_id(kUuid);
  const auto first = controller->Create(request);
  ASSERT_TRUE(first.ok()) << first.status();
  Settle();
  const auto second = controller->Create(request);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->name(), first->name());
  EXPECT_EQ(second->state(), v1::JOB_STATE_STARTING) << "as it is now";
  Boot();
  EXPECT_EQ(controller->Create(request)->name(), first->name()) << "remembered by the next server";
  EXPECT_THAT(launcher.launches, SizeIs(1));
}

TEST_F(JobControllerTest, Create_SameRequestIdOtherBody_AlreadyExists) {
  v1::CreateJobRequest request = Request("");
  request.set_request_id(kUuid);
  const auto first = controller->Create(request);
  ASSERT_TRUE(first.ok()) << first.status();
  request.mutable_job()->mutable_spec()->set_priority(1);
  const auto other = controller->Create(request);
  EXPECT_EQ(other.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(other.status()), "REQUEST_ID_REUSED");
  EXPECT_EQ(ReasonMetadataOf(other.status())["job"], first->name());
}

// --- get, list, cancel ---

TEST_F(JobControllerTest, Get_UnknownOrNoName_SaysSo) {
  EXPECT_EQ(controller->Get("jobs/none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(controller->Get("jobs/none").status()), "JOB_NOT_FOUND");
  for (const char* name : {"", "jobs/", "none", "jobs/../x", "tasks/a", "jobs/A"}) {
    EXPECT_EQ(controller->Get(name).status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST_F(JobControllerTest, List_Pages_HoldEveryJobOnceNewestFirst) {
  for (const char* id : {"a", "b", "c", "d", "e"}) Create(id);
  std::vector<std::string> names;
  v1::ListJobsRequest request;
  request.set_page_size(2);
  do {
    const auto response = controller->List(request);
    ASSERT_TRUE(response.ok()) << response.status();
    for (const v1::Job& job : response->jobs()) names.push_back(job.name());
    // A job that comes while one pages does not disturb.
    if (names.size() == 2) Create("late");
    request.set_page_token(response->next_page_token());
  } while (!request.page_token().empty());
  EXPECT_THAT(names, ElementsAre("jobs/e", "jobs/d", "jobs/c", "jobs/b", "jobs/a"));
}

TEST_F(JobControllerTest, List_States_AreAFilter) {
  for (const char* id : {"a", "b", "c"}) Create(id);
  Settle();
  v1::ListJobsRequest request;
  request.add_states(v1::JOB_STATE_QUEUED);
  const auto response = controller->List(request);
  ASSERT_TRUE(response.ok()) << response.status();
  ASSERT_EQ(response->jobs_size(), 1);
  EXPECT_EQ(response->jobs(0).name(), "jobs/c");
  EXPECT_THAT(response->jobs(0).reason(), HasSubstr("waiting for 1 cpu slot"));
}

TEST_F(JobControllerTest, List_OwnerAndLabels_AreFilters) {
  const auto create = [&](const std::string& id, const std::string& owner, const std::string& team) {
    v1::CreateJobRequest request = Request(id);
    request.mutable_job()->mutable_spec()->set_owner(owner);
    (*request.mutable_job()->mutable_spec()->mutable_labels())["team"] = team;
    ASSERT_TRUE(controller->Create(request).ok());
  };
  create("a", "ann", "red");
  create("b", "bob", "red");
  create("c", "ann", "blue");
  create("d", "ann", "red");
  const auto names = [&](v1::ListJobsRequest request) {
    std::vector<std::string> found;
    do {
      const auto page = controller->List(request);
      EXPECT_TRUE(page.ok()) << page.status();
      if (!page.ok()) break;
      for (const v1::Job& job : page->jobs()) found.push_back(job.name());
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return found;
  };
  v1::ListJobsRequest request;
  request.set_page_size(1);
  request.set_owner("ann");
  EXPECT_THAT(names(request), ElementsAre("jobs/d", "jobs/c", "jobs/a"));
  (*request.mutable_labels())["team"] = "red";
  EXPECT_THAT(names(request), ElementsAre("jobs/d", "jobs/a"));
  (*request.mutable_labels())["none"] = "";
  EXPECT_THAT(names(request), IsEmpty());
}

TEST_F(JobControllerTest, List_BadRequests_NameTheField) {
  Create("a");
  Create("b");
  v1::ListJobsRequest request;
  request.set_page_size(1001);
  EXPECT_EQ(FieldViolationsOf(controller->List(request).status()).at(0).field, "page_size");
  request.set_page_size(-1);
  EXPECT_EQ(FieldViolationsOf(controller->List(request).status()).at(0).field, "page_size");
  request.set_page_size(1);
  request.set_page_token("nonsense");
  EXPECT_EQ(FieldViolationsOf(controller->List(request).status()).at(0).field, "page_token");
  request.clear_page_token();
  request.set_page_token(controller->List(request)->next_page_token());
  EXPECT_TRUE(controller->List(request).ok());
  request.add_states(v1::JOB_STATE_QUEUED);
  EXPECT_EQ(FieldViolationsOf(controller->List(request).status()).at(0).field, "page_token") << "another filter";
  request.clear_page_token();
  request.add_states(static_cast<v1::JobState>(99));
  EXPECT_EQ(FieldViolationsOf(controller->List(request).status()).at(0).field, "states[1]");
}

TEST_F(JobControllerTest, Cancel_QueuedJob_EndsAtOnce) {
  Create("a");
  const auto job = controller->Cancel("jobs/a");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state(), v1::JOB_STATE_CANCELLED);
  Settle();
  EXPECT_THAT(launcher.launches, IsEmpty());
  EXPECT_EQ(controller->Cancel("jobs/a")->state(), v1::JOB_STATE_CANCELLED) << "again";
}

TEST_F(JobControllerTest, Cancel_RunningJob_StopsTheGangAndEndsWhenItIsGone) {
  const int64_t node = Run("a");
  EXPECT_EQ(controller->Cancel("jobs/a")->state(), v1::JOB_STATE_STOPPING);
  Settle();
  EXPECT_THAT(launcher.stops, ElementsAre(GangKey{"a", 1}));
  ASSERT_THAT(stops, SizeIs(1));
  EXPECT_EQ(stops[0].reason(), "cancelled on request");
  // What it still says is kept, but changes nothing.
  Send(node, {Log("stopping"), End(v1::FAILURE_CAUSE_RANK_LOST, "killed")});
  EXPECT_EQ(controller->Cancel("jobs/a")->state(), v1::JOB_STATE_STOPPING);
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(StateOf("a"), "CANCELLED");
  EXPECT_THAT(LogOf("a"), ElementsAre("stopping"));
  EXPECT_THAT(launcher.stops, SizeIs(1));
}

TEST_F(JobControllerTest, WhoAsked_IsInTheEventOfWhatWasAsked) {
  ASSERT_TRUE(controller->Create(Request("a"), "ana").ok());
  ASSERT_TRUE(controller->Pause("jobs/a", "ben").ok());
  ASSERT_TRUE(controller->Pause("jobs/a", "eve").ok());  // it is paused already: nothing happens
  ASSERT_TRUE(controller->Resume("jobs/a", "ben").ok());
  Settle();
  Attach("a");
  ASSERT_TRUE(controller->Cancel("jobs/a", "ana").ok());
  Settle();
  launcher.Exit({"a", 1});
  Settle();
  std::vector<std::string> states;
  for (const v1::JobEvent& event : Events("a")) {
    if (!event.has_state()) continue;
    states.push_back(StateName(event.state().state()) + " " + event.state().requested_by());
  }
  EXPECT_THAT(states, ElementsAre("QUEUED ana", "PAUSED ben", "QUEUED ben", "STARTING ", "RUNNING ", "STOPPING ana",
                                  "CANCELLED "));
}

TEST_F(JobControllerTest, Cancel_WhileBeingLaunched_StopsWhatWasLaunched) {
  Create("a");
  launcher.during_launch = [this] { EXPECT_EQ(controller->Cancel("jobs/a")->state(), v1::JOB_STATE_STOPPING); };
  Settle();
  EXPECT_THAT(launcher.stops, ElementsAre(GangKey{"a", 1}));
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(StateOf("a"), "CANCELLED");
}

TEST_F(JobControllerTest, Cancel_EndedJob_IsRefused) {
  Run("a");
  launcher.Exit({"a", 1}, FailureCause::kUserInput, "no");
  Settle();
  const auto job = controller->Cancel("jobs/a");
  EXPECT_EQ(job.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonMetadataOf(job.status())["state"], "FAILED");
  EXPECT_EQ(controller->Cancel("jobs/none").status().code(), absl::StatusCode::kNotFound);
}

// --- events ---

TEST_F(JobControllerTest, Events_InPages_MissAndRepeatNothing) {
  const int64_t node = Run("a");
  for (int i = 1; i <= 20; ++i) Send(node, {Step(i)});
  Send(node, {End(v1::FAILURE_CAUSE_NUMERICS, "loss is nan")});
  launcher.Exit({"a", 1});
  Settle();
  int64_t after = 0;
  bool complete = false;
  while (!complete) {
    const auto page = controller->Events("jobs/a", after, 7);
    ASSERT_TRUE(page.ok()) << page.status();
    ASSERT_FALSE(page->events.empty());
    for (const v1::JobEvent& event : page->events) EXPECT_EQ(event.sequence(), ++after);
    complete = page->complete;
  }
  EXPECT_EQ(after, Get("a").last_sequence());
  EXPECT_TRUE(controller->Events("jobs/a", after, 7)->complete) << "for one who has them all";
  EXPECT_EQ(controller->Events("jobs/a", after + 1, 7).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(controller->Events("jobs/a", -1, 7).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(controller->Events("jobs/none", 0, 7).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(JobControllerTest, WaitForEvents_NewEvent_WakesTheWaiter) {
  const int64_t node = Run("a");
  const int64_t last = Get("a").last_sequence();
  EXPECT_FALSE(*controller->WaitForEvents("jobs/a", last, milliseconds(1)));
  EXPECT_TRUE(*controller->WaitForEvents("jobs/a", last - 1, milliseconds(0)));
  auto waiter = std::async(std::launch::async,
                           [&] { return *controller->WaitForEvents("jobs/a", last, std::chrono::minutes(5)); });
  Send(node, {Step(1)});
  EXPECT_TRUE(waiter.get());
}

TEST_F(JobControllerTest, WaitForEvents_EndedOrShutDown_ReturnsAtOnce) {
  Create("a");
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  EXPECT_TRUE(*controller->WaitForEvents("jobs/a", 99, std::chrono::minutes(5)));
  EXPECT_EQ(controller->WaitForEvents("jobs/x", 0, milliseconds(0)).status().code(), absl::StatusCode::kNotFound);
  Create("b");
  auto waiter = std::async(std::launch::async, [&] {
    return controller->WaitForEvents("jobs/b", 99, std::chrono::minutes(5)).status().code();
  });
  controller->Shutdown();
  EXPECT_EQ(waiter.get(), absl::StatusCode::kUnavailable);
}

TEST_F(JobControllerTest, Listeners_HearEveryEventOnceItIsKept) {
  std::vector<int64_t> heard;
  controller->AddListener([&](const v1::Job& job, const v1::JobEvent& event) {
    heard.push_back(event.sequence());
    EXPECT_GE(job.last_sequence(), event.sequence());
    // Readable by others already.
    EXPECT_EQ(store->Events("a", event.sequence() - 1, 1)->at(0).SerializeAsString(), event.SerializeAsString());
  });
  const int64_t node = Run("a");
  Send(node, {Step(1), Step(2)});
  EXPECT_THAT(heard, ElementsAre(1, 2, 3, 4, 5));
}

TEST_F(JobControllerTest, LogLines_AreBoundedAndWhatIsDroppedIsCounted) {
  max_log_events = 20;
  Boot();
  const int64_t node = Run("a");
  for (int i = 0; i < 50; ++i) Send(node, {Log("line " + std::to_string(i))});
  Send(node, {Log("bad", v1::LOG_SEVERITY_ERROR), Log("worse", v1::LOG_SEVERITY_ERROR), Step(1)});
  Send(node, {End(v1::FAILURE_CAUSE_NUMERICS, "nan")});
  launcher.Exit({"a", 1});
  Settle();
  const std::vector<std::string> log = LogOf("a");
  ASSERT_THAT(log, SizeIs(23));
  EXPECT_EQ(log[19], "line 19");
  EXPECT_EQ(log[20], "the log is full (20 lines): further lines are dropped");
  EXPECT_EQ(log[21], "bad") << "room is kept for what matters";
  EXPECT_EQ(log[22], "dropped 31 log lines");
  EXPECT_EQ(Get("a").latest_step().step(), 1) << "steps are no log";
  EXPECT_TRUE(Events("a").back().has_state()) << "the last event ends the job";
}

TEST_F(JobControllerTest, LogLine_TooLong_IsCutBetweenCharacters) {
  const int64_t node = Run("a");
  std::string text = "x";
  for (int i = 0; i < 10'000; ++i) text += "ä";
  Send(node, {Log(text)});
  EXPECT_EQ(LogOf("a").at(0), text.substr(0, 16383) + "... (3618 bytes cut)");
}

// --- nodes ---

TEST_F(JobControllerTest, Attach_GetsTheAssignment) {
  Create("a");
  Settle();
  const auto attachment = controller->AttachNode(Hello("a"), nullptr);
  ASSERT_TRUE(attachment.ok()) << attachment.status();
  EXPECT_EQ(attachment->assignment.job(), "jobs/a");
  EXPECT_EQ(attachment->assignment.epoch(), 1);
  EXPECT_EQ(attachment->assignment.world_size(), 1);
  EXPECT_EQ(attachment->assignment.spec().training().micro_batch_tokens(), 2048) << "complete";
}

// --- several ranks ---

class JobOfThreeRanksTest : public JobControllerTest {
 protected:
  JobOfThreeRanksTest() {
    slots = {{"cpu", 5}};
    Boot();
  }

  void CreateOfThree(const std::string& id, v1::Resources::Device device = v1::Resources::DEVICE_CPU) {
    v1::CreateJobRequest request = Request(id);
    request.mutable_job()->mutable_spec()->mutable_resources()->set_ranks_per_node(3);
    request.mutable_job()->mutable_spec()->mutable_resources()->set_device(device);
    ASSERT_TRUE(controller->Create(request).ok());
    Settle();
  }

  // The first report of a rank.
  static v1::RankReport FirstEnd(int32_t rank, v1::FailureCause cause = v1::FAILURE_CAUSE_UNSPECIFIED) {
    v1::RankReport report;
    report.set_rank(rank);
    report.set_sequence(1);
    report.mutable_end()->set_cause(cause);
    return report;
  }
};

TEST_F(JobOfThreeRanksTest, EachTakesASlotAndIsAssigned) {
  CreateOfThree("a");
  CreateOfThree("b");
  EXPECT_EQ(StateOf("b"), "QUEUED");
  EXPECT_THAT(Get("b").reason(), HasSubstr("3 cpu slots: 3 of 5 in use"));
  const auto attachment = controller->AttachNode(Hello("a"), nullptr);
  ASSERT_TRUE(attachment.ok()) << attachment.status();
  EXPECT_EQ(attachment->assignment.world_size(), 3);
  EXPECT_EQ(attachment->assignment.ranks_per_node(), 3);
}

TEST_F(JobOfThreeRanksTest, OnGpus_TakesTheirSlotsAndNotThoseOfTheCpu) {
  slots = {{"cpu", 0}, {"cuda", 5}};
  Boot();
  CreateOfThree("a", v1::Resources::DEVICE_CUDA);
  CreateOfThree("b", v1::Resources::DEVICE_CUDA);
  EXPECT_EQ(launcher.launches.back().gpus_per_node, 3);
  EXPECT_EQ(StateOf("b"), "QUEUED");
  EXPECT_THAT(Get("b").reason(), HasSubstr("3 cuda slots: 3 of 5 in use"));
}

TEST_F(JobOfThreeRanksTest, OnGpus_TheOneThatLooksNeedsNone) {
  slots = {{"cuda", 3}};
  max_preflights = 1;
  Boot();
  CreateOfThree("a", v1::Resources::DEVICE_CUDA);
  EXPECT_TRUE(controller->AttachNode(Hello("a"), nullptr)->assignment.preflight());
  EXPECT_EQ(launcher.launches.back().gpus_per_node, 0);
}

TEST_F(JobOfThreeRanksTest, OneRankLooks) {
  max_preflights = 1;
  Boot();
  CreateOfThree("a");
  const auto attachment = controller->AttachNode(Hello("a"), nullptr);
  ASSERT_TRUE(attachment.ok()) << attachment.status();
  EXPECT_TRUE(attachment->assignment.preflight());
  EXPECT_EQ(attachment->assignment.ranks_per_node(), 1);
}

TEST_F(JobOfThreeRanksTest, EndsWithRank0_OrWithTheFirstThatFails) {
  for (const std::string id : {"a", "b"}) {
    CreateOfThree(id);
    const int64_t node = Attach(id);
    ASSERT_TRUE(controller->HandleReports(node, {FirstEnd(1)}).ok());
    EXPECT_EQ(StateOf(id), "RUNNING") << "rank 0 does not need it any more";
    const v1::RankReport last = id == "a" ? FirstEnd(0) : FirstEnd(2, v1::FAILURE_CAUSE_RANK_LOST);
    ASSERT_TRUE(controller->HandleReports(node, {last}).ok());
    EXPECT_EQ(StateOf(id), "STOPPING");
    EXPECT_EQ(CauseName(Events(id).back().state().cause()), id == "a" ? "UNSPECIFIED" : "RANK_LOST");
    launcher.Exit({id, 1});
    Settle();
  }
}

TEST_F(JobOfThreeRanksTest, AdoptedByTheNextServer_ItsRanksGoOnReporting) {
  CreateOfThree("a");
  int64_t node = Attach("a");
  v1::RankReport log = Log("of rank 2");
  log.set_rank(2);
  Send(node, {log});
  Boot();
  node = Attach("a");
  v1::RankReport next = log;
  next.set_sequence(2);
  const auto acks = controller->HandleReports(node, {log, next});
  ASSERT_TRUE(acks.ok()) << acks.status();
  EXPECT_THAT(LogOf("a"), SizeIs(2)) << "what is sent again counts once";
  next.set_rank(3);
  EXPECT_THAT(controller->HandleReports(node, {next}).status().message(), HasSubstr("node 0 has 3 ranks from 0"));
}

// --- several nodes ---

class JobOfTwoNodesTest : public JobControllerTest {
 protected:
  JobOfTwoNodesTest() {
    slots = {{"cpu", 4}};
    Boot();
  }

  void CreateOfTwoNodes() {
    v1::CreateJobRequest request = Request("a");
    request.mutable_job()->mutable_spec()->mutable_resources()->set_ranks_per_node(2);
    request.mutable_job()->mutable_spec()->mutable_resources()->set_nodes(2);
    const auto job = controller->Create(request);
    ASSERT_TRUE(job.ok()) << job.status();
    Settle();
  }

  int64_t AttachNode(int32_t node) {
    v1::Hello hello = Hello("a");
    hello.set_node(node);
    hello.set_incarnation(node == 0 ? "first" : "second");
    if (node == 0) hello.mutable_meeting()->set_host("10.0.0.1");
    if (node == 0) hello.mutable_meeting()->set_port(4321);
    const auto attachment = controller->AttachNode(hello, [this, node](const v1::AttachResponse& command) {
      (command.has_meeting() ? met : stopped).emplace_back(node, command);
    });
    EXPECT_TRUE(attachment.ok()) << attachment.status();
    if (!attachment.ok()) return 0;
    EXPECT_EQ(attachment->assignment.world_size(), 4);
    EXPECT_EQ(attachment->assignment.ranks_per_node(), 2);
    return attachment->id;
  }

  static v1::RankReport EndOf(int32_t rank, v1::FailureCause cause, const std::string& message, int32_t status = 0) {
    v1::RankReport report;
    report.set_rank(rank);
    report.set_sequence(1);
    report.mutable_end()->set_cause(cause);
    report.mutable_end()->set_message(message);
    report.mutable_end()->set_exit_status(status);
    return report;
  }

  std::string ReasonAfterExit() {
    launcher.Exit({"a", 1});
    Settle();
    return Get("a").reason();
  }

  std::vector<std::pair<int32_t, v1::AttachResponse>> met, stopped;
};

TEST_F(JobOfTwoNodesTest, RunsWhenBothAreThere_AndTheyAreToldWhereToMeet) {
  CreateOfTwoNodes();
  ASSERT_THAT(launcher.launches, SizeIs(1));
  EXPECT_EQ(launcher.launches[0].nodes, 2);
  AttachNode(1);
  EXPECT_EQ(StateOf("a"), "STARTING");
  EXPECT_THAT(met, IsEmpty());
  AttachNode(0);
  EXPECT_EQ(StateOf("a"), "RUNNING");
  ASSERT_THAT(met, SizeIs(2));
  for (const auto& [node, command] : met) {
    EXPECT_EQ(command.meeting().host(), "10.0.0.1");
    EXPECT_EQ(command.meeting().port(), 4321);
  }
}

TEST_F(JobOfTwoNodesTest, OneThatNeverAttaches_IsNamed) {
  CreateOfTwoNodes();
  const int64_t node = AttachNode(0);
  clock.Advance(seconds(100));
  controller->Heartbeat(node);
  clock.Advance(seconds(21));
  Settle();
  EXPECT_EQ(StateOf("a"), "STOPPING");
  EXPECT_THAT(stopped, SizeIs(1)) << "node 0 waits for nothing any more";
  EXPECT_THAT(ReasonAfterExit(), HasSubstr("LAUNCH: node 1 of 2 did not report within 120 s of its launch"));
}

TEST_F(JobOfTwoNodesTest, OneThatFallsSilent_IsAHang) {
  CreateOfTwoNodes();
  const int64_t node = AttachNode(0);
  AttachNode(1);
  for (int i = 0; i < 121; ++i) {
    clock.Advance(seconds(1));
    controller->Heartbeat(node);
  }
  Settle();
  EXPECT_THAT(ReasonAfterExit(), HasSubstr("HANG: no word from node 1 of 2 for 120 s"));
}

TEST_F(JobOfTwoNodesTest, SpeaksOnlyForItself) {
  CreateOfTwoNodes();
  AttachNode(0);
  const int64_t node = AttachNode(1);
  v1::RankReport log = Log("of the node");
  for (const int32_t rank : {-2, 2, 3}) {
    log.set_rank(rank);
    EXPECT_TRUE(controller->HandleReports(node, {log}).ok()) << rank;
  }
  for (const int32_t rank : {-1, 0, 1, 4}) {
    log.set_rank(rank);
    EXPECT_THAT(controller->HandleReports(node, {log}).status().message(), HasSubstr("node 1 has 2 ranks from 2"));
  }
  EXPECT_EQ(Events("a").back().log().rank(), 3);
  EXPECT_EQ((Events("a").end() - 3)->log().rank(), -1) << "-2 is the server";
}

TEST_F(JobOfTwoNodesTest, ReportsOfBothInOneCommit_AreAllKept) {
  CreateOfTwoNodes();
  const int64_t first = AttachNode(0), second = AttachNode(1);
  v1::RankReport of_first = Log("of rank 0"), of_second = Log("of rank 2");
  of_first.set_sequence(1);
  of_second.set_sequence(1);
  of_second.set_rank(2);
  const auto answers = controller->HandleReports({{first, {of_first}}, {second, {of_second}}});
  ASSERT_THAT(answers, SizeIs(2));
  EXPECT_TRUE(answers[0].ok() && answers[1].ok());
  EXPECT_THAT(LogOf("a"), ElementsAre("of rank 0", "of rank 2"));
}

TEST_F(JobOfTwoNodesTest, OneSaysItMissesARank_TheOtherKnowsWhy) {
  for (const bool known_first : {false, true}) {
    CreateOfTwoNodes();
    const std::vector<int64_t> nodes = {AttachNode(0), AttachNode(1)};
    const auto misses = EndOf(0, v1::FAILURE_CAUSE_RANK_LOST, "rank 0 of 4 has lost rank 3");
    const auto killed = EndOf(3, v1::FAILURE_CAUSE_RANK_LOST, "temper-rank was killed by SIGKILL", -9);
    for (const bool known : {known_first, !known_first}) {
      ASSERT_TRUE(controller->HandleReports(nodes[known ? 1 : 0], {known ? killed : misses}).ok());
      Settle();
      ASSERT_THAT(stopped, SizeIs(2)) << "at once, both";
      EXPECT_TRUE(stopped[1].second.stop().gang_lost());
      EXPECT_FALSE(stopped[1].second.stop().checkpoint());
    }
    EXPECT_THAT(ReasonAfterExit(), HasSubstr("RANK_LOST: temper-rank was killed by SIGKILL"));
    ASSERT_TRUE(controller->Cancel("jobs/a").ok());
    ASSERT_TRUE(controller->Delete("jobs/a").ok());
    launcher.launches.clear();
    stopped.clear();
  }
}

TEST_F(JobOfTwoNodesTest, OneIsGoneWithoutAWord_EndsTheGang) {
  CreateOfTwoNodes();
  const int64_t node = AttachNode(0);
  AttachNode(1);
  const auto misses = EndOf(1, v1::FAILURE_CAUSE_RANK_LOST, "rank 1 of 4 has lost rank 3");
  ASSERT_TRUE(controller->HandleReports(node, {misses}).ok());
  launcher.LoseNode({"a", 1}, 1);
  Settle();
  EXPECT_EQ(StateOf("a"), "STOPPING");
  EXPECT_THAT(ReasonAfterExit(), HasSubstr("RANK_LOST: killed by signal 9"));
}

TEST_F(JobOfTwoNodesTest, OneIsGoneBeforeTheOthersAreThere_IsALaunchFailure) {
  CreateOfTwoNodes();
  AttachNode(0);
  launcher.LoseNode({"a", 1}, 1);
  Settle();
  EXPECT_EQ(StateOf("a"), "STOPPING");
  EXPECT_THAT(ReasonAfterExit(), HasSubstr("LAUNCH: killed by signal 9"));
}

TEST_F(JobOfTwoNodesTest, AdoptedByTheNextServer_MeetWhenBothAreBack) {
  CreateOfTwoNodes();
  AttachNode(1);
  Boot();
  EXPECT_EQ((launcher.recovered_nodes[{"a", 1}]), 2);
  Settle();
  AttachNode(0);
  EXPECT_EQ(StateOf("a"), "RUNNING") << "node 1 was there before";
  ASSERT_THAT(met, SizeIs(1));
  AttachNode(1);
  EXPECT_THAT(met, SizeIs(2));
  launcher.Exit({"a", 1});
  Settle();
  v1::Hello stranger = Hello("a");
  stranger.set_node(2);
  EXPECT_FALSE(controller->AttachNode(stranger, nullptr).ok());
}

TEST_F(JobOfTwoNodesTest, Pause_IsToldToBoth) {
  CreateOfTwoNodes();
  AttachNode(0);
  AttachNode(1);
  ASSERT_TRUE(controller->Pause("jobs/a").ok());
  Settle();
  ASSERT_THAT(stopped, SizeIs(2));
  for (const auto& [node, command] : stopped) {
    EXPECT_TRUE(command.stop().checkpoint());
    EXPECT_FALSE(command.stop().gang_lost());
  }
}

TEST_F(JobControllerTest, Attach_WrongCredentials_IsRefused) {
  Run("a");
  Create("b");
  Settle();
  v1::Hello hello = Hello("a");
  hello.set_token("guess");
  EXPECT_EQ(controller->AttachNode(hello, nullptr).status().code(), absl::StatusCode::kUnauthenticated);
  hello.set_token(Hello("b").token());
  EXPECT_EQ(controller->AttachNode(hello, nullptr).status().code(), absl::StatusCode::kUnauthenticated);
  hello = Hello("a");
  hello.set_epoch(2);
  EXPECT_EQ(controller->AttachNode(hello, nullptr).status().code(), absl::StatusCode::kUnauthenticated);
  hello = Hello("a");
  hello.set_job("jobs/none");
  EXPECT_EQ(controller->AttachNode(hello, nullptr).status().code(), absl::StatusCode::kUnauthenticated);
  hello = Hello("a");
  hello.set_node(1);
  EXPECT_EQ(controller->AttachNode(hello, nullptr).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(JobControllerTest, Attach_SecondIncarnation_IsRefused) {
  Run("a");
  v1::Hello hello = Hello("a");
  hello.set_incarnation("2");
  const auto attachment = controller->AttachNode(hello, nullptr);
  EXPECT_EQ(attachment.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(attachment.status()), "INCARNATION_REFUSED");
}

TEST_F(JobControllerTest, Attach_OldEpoch_IsRefused) {
  Run("a");
  const v1::Hello old = Hello("a");
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(controller->AttachNode(old, nullptr).status().code(), absl::StatusCode::kFailedPrecondition);
  clock.Advance(seconds(5));
  Settle();
  EXPECT_EQ(Get("a").epoch(), 2);
  const auto attachment = controller->AttachNode(old, nullptr);
  EXPECT_EQ(attachment.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(attachment.status()), "EPOCH_OVER");
}

TEST_F(JobControllerTest, Reattach_SameIncarnation_ReplacesTheStream) {
  const int64_t first = Run("a");
  const int64_t second = Attach("a");
  EXPECT_EQ(controller->HandleReports(first, {Step(1)}).status().code(), absl::StatusCode::kFailedPrecondition);
  sequence = 0;
  Send(second, {Step(1)});
  controller->DetachNode(first);
  Send(second, {Step(2)});
  EXPECT_THAT(History("a"), ElementsAre("QUEUED", "STARTING", "RUNNING"));
}

TEST_F(JobControllerTest, Reattach_OfAStoppedJob_IsToldToStop) {
  const int64_t first = Run("a");
  controller->DetachNode(first);
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  Settle();
  EXPECT_THAT(stops, IsEmpty());
  Attach("a");
  EXPECT_THAT(stops, SizeIs(1));
}

TEST_F(JobControllerTest, Reports_SentAgain_AreKeptOnceAndAcknowledged) {
  int64_t node = Run("a");
  const v1::RankReport one = Step(1);
  const v1::RankReport two = Step(2);
  Send(node, {one, two});
  node = Attach("a");
  Send(node, {one, two});
  sequence = 2;
  Send(node, {two, Step(3)});
  std::vector<int64_t> steps;
  for (const v1::JobEvent& event : Events("a")) {
    if (event.has_step()) steps.push_back(event.step().step());
  }
  EXPECT_THAT(steps, ElementsAre(1, 2, 3));
}

TEST_F(JobControllerTest, Reports_OfNodeAndRank_AreNumberedApart) {
  const int64_t node = Run("a");
  v1::RankReport of_node = Log("from the node");
  of_node.set_rank(-1);
  sequence = 0;
  const auto acks = controller->HandleReports(node, {of_node, Step(1), Step(2)});
  ASSERT_TRUE(acks.ok()) << acks.status();
  ASSERT_THAT(*acks, SizeIs(2));
  EXPECT_EQ((*acks)[0].rank(), -1);
  EXPECT_EQ((*acks)[0].sequence(), 1);
  EXPECT_EQ((*acks)[1].rank(), 0);
  EXPECT_EQ((*acks)[1].sequence(), 2);
}

TEST_F(JobControllerTest, Reports_Malformed_AreRefusedAndNothingIsKept) {
  const int64_t node = Run("a");
  const int64_t before = Get("a").last_sequence();
  const v1::RankReport first = Step(1);
  ++sequence;
  EXPECT_EQ(controller->HandleReports(node, {first, Step(3)}).status().code(), absl::StatusCode::kInvalidArgument);
  v1::RankReport stranger = first;
  stranger.set_rank(5);
  EXPECT_EQ(controller->HandleReports(node, {first, stranger}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Get("a").last_sequence(), before);
  Send(node, {first});
}

TEST_F(JobControllerTest, Reports_OfSeveralNodes_AreKeptTogether) {
  const int64_t a = Run("a"), b = Run("b");
  v1::RankReport gap = Step(1);
  gap.set_sequence(2);
  sequence = 0;
  const v1::RankReport step = Step(1);
  EXPECT_TRUE(absl::IsInvalidArgument(controller->HandleReports(a, {gap}).status()));

  // Who hears of the one finds the other in the store.
  std::vector<size_t> kept_of_b;
  const size_t before = store->Events("b", 0, 100)->size();
  controller->AddListener([&](const v1::Job&, const v1::JobEvent& event) {
    if (event.has_step()) kept_of_b.push_back(store->Events("b", 0, 100)->size() - before);
  });
  const auto answers = controller->HandleReports({{a, {step}}, {12345, {step}}, {b, {step}}});
  ASSERT_THAT(answers, SizeIs(3));
  ASSERT_TRUE(answers[0].ok()) << answers[0].status();
  EXPECT_EQ(answers[0]->front().sequence(), 1);
  EXPECT_EQ(answers[1].status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(answers[2].ok()) << answers[2].status();
  EXPECT_THAT(kept_of_b, ElementsAre(1, 1));
  EXPECT_THAT(Steps("a"), ElementsAre(1));
  EXPECT_THAT(Steps("b"), ElementsAre(1));
}

TEST_F(JobControllerTest, Reports_OfANodeThatCannotBeKept_HoldNobodyUp) {
  const int64_t a = Run("a"), b = Run("b");
  {
    auto connection = Sqlite::Open((scratch.path() / "data/temper.db").string(), Sqlite::Mode::kReadWrite);
    ASSERT_TRUE((*connection)->Execute("DELETE FROM jobs WHERE id = 'b'").ok());
  }
  sequence = 0;
  const v1::RankReport step = Step(1);
  const auto answers = controller->HandleReports({{a, {step}}, {b, {step}}});
  EXPECT_TRUE(answers[0].ok()) << answers[0].status();
  EXPECT_EQ(answers[1].status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Steps("a"), ElementsAre(1));
}

TEST_F(JobControllerTest, Token_IsNotInTheStore) {
  Create("a");
  Settle();
  const std::string token = launcher.launches.at(0).token;
  EXPECT_THAT(token, SizeIs(64));
  EXPECT_EQ(store->GetEpoch("a", 1)->token_hash, Sha256Hex(token));
}

// --- restarts of the server ---

TEST_F(JobControllerTest, ServerKilled_RunningGangIsAdoptedAndGoesOnReporting) {
  Send(Run("a"), {Step(1), Step(2)});
  Boot();
  EXPECT_EQ(StateOf("a"), "RUNNING");
  EXPECT_EQ(launcher.recovered.at({"a", 1}),
            std::make_pair(std::filesystem::path("/runs/a/e1"), std::string("handle of a")));
  Settle();
  // Back with what was not acknowledged, step 2 among it, and with what happened meanwhile.
  const int64_t node = Attach("a");
  sequence = 1;
  Send(node, {Step(2), Step(3), Export(), End()});
  Settle();
  EXPECT_THAT(launcher.stops, IsEmpty());
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(StateOf("a"), "SUCCEEDED");
  EXPECT_EQ(Get("a").epoch(), 1);
  EXPECT_THAT(Steps("a"), ElementsAre(1, 2, 3));
  EXPECT_THAT(History("a"), ElementsAre("QUEUED", "STARTING", "RUNNING", "STOPPING", "SUCCEEDED"));
}

TEST_F(JobControllerTest, ServerKilled_AdoptedGangThatStaysSilent_IsStopped) {
  Run("a");
  Boot();
  Settle();
  EXPECT_THAT(launcher.stops, IsEmpty());
  clock.Advance(seconds(121));
  Settle();
  EXPECT_THAT(launcher.stops, ElementsAre(GangKey{"a", 1}));
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_THAT(Get("a").reason(), HasSubstr("HANG"));
}

TEST_F(JobControllerTest, ServerKilled_AdoptedGangThatDied_IsRestartedFromItsCheckpoint) {
  Run("a");
  Boot();
  Settle();
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(StateOf("a"), "QUEUED");
  EXPECT_EQ(Get("a").restarts(), 1);
}

TEST_F(JobControllerTest, ServerKilled_BeforeTheGangWasThere_IsFree) {
  Create("a");
  Settle();
  Boot();
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(Get("a").restarts(), 0);
  EXPECT_EQ(Get("a").epoch(), 2);
}

TEST_F(JobControllerTest, ServerKilled_RecoveredGangs_CountBeforeAnythingIsScheduled) {
  slots = {{"cpu", 1}};
  Boot();
  Run("a");
  Create("urgent", 100);
  Boot();
  Settle();
  EXPECT_THAT(launcher.launches, SizeIs(1));
  EXPECT_EQ(Get("urgent").reason(), "waiting for 1 cpu slot: 1 of 1 in use by jobs/a");
}

TEST_F(JobControllerTest, ServerKilled_WhileLaunching_FindsTheGangWithoutAHandle) {
  Create("a");
  launcher.during_launch = [this] {
    // The server dies here: the epoch is kept, the handle is not.
    EXPECT_EQ(store->GetEpoch("a", 1)->launcher_handle, "");
    EXPECT_EQ(store->GetEpoch("a", 1)->run_dir, "/runs/a/e1");
    EXPECT_EQ(store->Get("a")->life.state, v1::JOB_STATE_STARTING);
  };
  Settle();
  EXPECT_EQ(store->GetEpoch("a", 1)->launcher_handle, "handle of a");
}

TEST_F(JobControllerTest, ServerKilled_WhileCancelling_CancelsAllTheSame) {
  Run("a");
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  Boot();
  Settle();
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(StateOf("a"), "CANCELLED");
}

TEST_F(JobControllerTest, ServerKilled_AfterTheEndWasReported_KeepsThatEnd) {
  int64_t node = Run("good");
  Send(node, {Export(), End()});
  node = Run("bad");
  Send(node, {End(v1::FAILURE_CAUSE_OUT_OF_MEMORY, "out of memory at step 3")});
  Boot();
  Settle();
  launcher.Exit({"good", 1});
  launcher.Exit({"bad", 1});
  Settle();
  EXPECT_EQ(StateOf("good"), "SUCCEEDED");
  EXPECT_EQ(StateOf("bad"), "FAILED");
  EXPECT_EQ(Get("bad").reason(), "out of memory at step 3");
}

TEST_F(JobControllerTest, ServerKilled_WaitingForARetry_StillWaits) {
  Run("a");
  launcher.Exit({"a", 1});
  Settle();
  Boot();
  Settle();
  EXPECT_THAT(launcher.launches, SizeIs(1));
  clock.Advance(seconds(5));
  Settle();
  EXPECT_THAT(launcher.launches, SizeIs(2));
  EXPECT_EQ(Get("a").restarts(), 1);
}

TEST_F(JobControllerTest, Shutdown_LeavesGangsAlone) {
  Run("a");
  controller->Shutdown();
  EXPECT_THAT(launcher.stops, IsEmpty());
  EXPECT_THAT(stops, IsEmpty());
  EXPECT_EQ(store->Get("a")->life.state, v1::JOB_STATE_RUNNING);
  EXPECT_EQ(controller->Create(Request("b")).status().code(), absl::StatusCode::kUnavailable);
  // A node that comes back meanwhile is to try again later, not to give up.
  EXPECT_EQ(controller->AttachNode(Hello("a"), nullptr).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(JobControllerTest, StopGangs_AfterShutdown_KeepsProgressAndQueuesTheirJobs) {
  Run("a");
  std::promise<void> told;
  launcher.on_stop = [&] { told.set_value(); };
  controller->Shutdown();
  auto gone = std::async(std::launch::async, [this] { controller->StopGangs(std::chrono::minutes(5)); });
  told.get_future().get();
  launcher.Exit({"a", 1});
  gone.get();
  ASSERT_THAT(stops, SizeIs(1));
  EXPECT_TRUE(stops[0].checkpoint());
  EXPECT_EQ(store->Get("a")->life.state, v1::JOB_STATE_QUEUED);
  EXPECT_EQ(store->Get("a")->life.restarts, 0);
  EXPECT_THAT(launcher.launches, SizeIs(1)) << "nothing is started any more";
}

// --- pause, resume, delete ---

TEST_F(JobControllerTest, Pause_RunningJob_HasTimeForItsCheckpointAndGivesItsSlotAway) {
  slots = {{"cpu", 1}};
  Boot();
  Run("a");
  Create("b");
  ASSERT_TRUE(controller->Pause("jobs/a").ok());
  Settle();
  ASSERT_THAT(stops, SizeIs(1));
  EXPECT_TRUE(stops[0].checkpoint());
  EXPECT_THAT(launcher.stops, IsEmpty()) << "no signal while it may be writing";
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(StateOf("a"), "PAUSED");
  EXPECT_EQ(StateOf("b"), "STARTING");
  EXPECT_EQ(controller->Pause("jobs/a")->state(), v1::JOB_STATE_PAUSED);

  ASSERT_TRUE(controller->Resume("jobs/a").ok());
  Settle();
  EXPECT_EQ(Get("a").reason(), "resumed on request; waiting for 1 cpu slot: 1 of 1 in use by jobs/b");
  EXPECT_EQ(Get("a").restarts(), 0);
}

TEST_F(JobControllerTest, Pause_GangTakesForever_IsStoppedTheHardWay) {
  Run("a");
  ASSERT_TRUE(controller->Pause("jobs/a").ok());
  Settle();
  clock.Advance(seconds(601));
  Settle();
  EXPECT_THAT(launcher.stops, ElementsAre(GangKey{"a", 1}));
}

TEST_F(JobControllerTest, Pause_ThenCancel_OverrulesTheStopThatKeepsProgress) {
  Run("a");
  ASSERT_TRUE(controller->Pause("jobs/a").ok());
  Settle();
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  Settle();
  ASSERT_THAT(stops, SizeIs(2));
  EXPECT_FALSE(stops[1].checkpoint());
  EXPECT_THAT(launcher.stops, ElementsAre(GangKey{"a", 1}));
  EXPECT_EQ(controller->Resume("jobs/a").status().code(), absl::StatusCode::kFailedPrecondition);
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(StateOf("a"), "CANCELLED");
}

TEST_F(JobControllerTest, Resume_WhilePausing_StartsAgainAfterThePause) {
  Run("a");
  ASSERT_TRUE(controller->Pause("jobs/a").ok());
  Settle();
  ASSERT_TRUE(controller->Resume("jobs/a").ok());
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_EQ(StateOf("a"), "STARTING");
  EXPECT_EQ(Get("a").epoch(), 2);
  EXPECT_EQ(Get("a").restarts(), 0);
}

TEST_F(JobControllerTest, PausedJob_SurvivesTheServer) {
  Create("a");
  ASSERT_TRUE(controller->Pause("jobs/a").ok());
  Boot();
  Settle();
  EXPECT_EQ(StateOf("a"), "PAUSED");
  EXPECT_THAT(launcher.launches, IsEmpty());
}

TEST_F(JobControllerTest, KeepEnded_JobsThatEndedBeforeAreDeleted) {
  keep_ended = std::chrono::hours(48);
  Boot();
  for (const char* id : {"old", "new", "live"}) Create(id);
  ASSERT_TRUE(controller->Cancel("jobs/old").ok());
  clock.Advance(std::chrono::hours(40));
  ASSERT_TRUE(controller->Cancel("jobs/new").ok());
  clock.Advance(std::chrono::hours(7));
  Settle();
  EXPECT_EQ(StateOf("old"), "CANCELLED");
  clock.Advance(std::chrono::hours(1) + seconds(1));
  Settle();
  EXPECT_EQ(controller->Get("jobs/old").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(StateOf("new"), "CANCELLED");
  EXPECT_TRUE(controller->Get("jobs/live").ok());
}

TEST_F(JobControllerTest, KeepEnded_DateIsSet_DeletesNothingEarly) {
  keep_ended = std::chrono::hours(48);
  Boot();
  Create("a");
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  clock.SetWall(clock.Wall() + std::chrono::hours(24 * 365));
  clock.Advance(std::chrono::hours(40));
  Settle();
  EXPECT_EQ(StateOf("a"), "CANCELLED");
}

TEST_F(JobControllerTest, Delete_EndedJobsOnly_LeavesNothing) {
  Create("a");
  EXPECT_EQ(controller->Delete("jobs/a").code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(controller->Cancel("jobs/a").ok());
  ASSERT_TRUE(controller->Delete("jobs/a").ok());
  EXPECT_EQ(controller->Get("jobs/a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(controller->Delete("jobs/a").code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(*store->Events("a", 0, 10), IsEmpty());
  Create("a");  // the id is free again
}

// --- checkpoints ---

// What a gang leaves in its output.
class JobControllerCheckpointTest : public JobControllerTest {
 protected:
  JobControllerCheckpointTest() : output_(*ObjectStore::Open((scratch.path() / "out").string())) {}

  int64_t RunWithOutput(const std::string& id) {
    v1::CreateJobRequest request = Request(id);
    request.mutable_job()->mutable_spec()->mutable_output()->set_uri(output_->uri());
    EXPECT_TRUE(controller->Create(request).ok());
    Settle();
    return Attach(id);
  }

  std::string Commit(CheckpointKey key) {
    const std::string directory = CheckpointDirectory("a", key);
    auto publication = Publication::Begin(*output_, directory, "a", key.epoch);
    EXPECT_TRUE((*publication)->Write("trainer.json", "{}").ok());
    EXPECT_TRUE((*publication)->Commit().ok());
    return output_->UriOf(directory);
  }

  v1::RankReport Committed(CheckpointKey key) {
    v1::RankReport report = Report();
    report.mutable_checkpoint()->set_step(key.step);
    report.mutable_checkpoint()->set_epoch(key.epoch);
    report.mutable_checkpoint()->set_uri(output_->UriOf(CheckpointDirectory("a", key)));
    return report;
  }

  // The gang dies; the next one is launched. Returns where it shall go on from.
  std::vector<std::string> Relaunch(int32_t epoch) {
    launcher.Exit({"a", epoch});
    Settle();
    clock.Advance(std::chrono::minutes(5));
    Settle();
    const auto attachment = controller->AttachNode(Hello("a"), nullptr);
    EXPECT_TRUE(attachment.ok()) << attachment.status();
    sequence = 0;
    return {attachment->assignment.checkpoints().begin(), attachment->assignment.checkpoints().end()};
  }

  std::unique_ptr<ObjectStore> output_;
};

TEST_F(JobControllerCheckpointTest, NextGang_GoesOnFromTheNewestCheckpoints) {
  const int64_t node = RunWithOutput("a");
  const std::string first = Commit({10, 1}), second = Commit({20, 1});
  Send(node, {Step(25), Committed({10, 1}), Committed({20, 1})});
  EXPECT_EQ(Get("a").checkpoint_step(), 20);
  EXPECT_THAT(Relaunch(1), ElementsAre(second, first));
  EXPECT_EQ(Get("a").latest_step().step(), 25);
}

TEST_F(JobControllerCheckpointTest, CommittedButNotReported_IsFoundAndIndexed) {
  RunWithOutput("a");
  const std::string uri = Commit({10, 1});
  EXPECT_THAT(Relaunch(1), ElementsAre(uri));
  const auto index = controller->Checkpoints("jobs/a");
  ASSERT_THAT(*index, SizeIs(1));
  EXPECT_EQ(index->front().name(), "jobs/a/checkpoints/10");
  EXPECT_EQ(index->front().size_bytes(), 2);
}

TEST_F(JobControllerCheckpointTest, WhatAnOlderGangAddsLater_IsNotUsed) {
  RunWithOutput("a");
  const std::string good = Commit({10, 1});
  Relaunch(1);
  Commit({90, 1});  // a gang that was thought dead
  EXPECT_THAT(Relaunch(2), ElementsAre(good));
}

TEST_F(JobControllerCheckpointTest, IndexedButGone_IsForgotten) {
  const int64_t node = RunWithOutput("a");
  Send(node, {Committed({10, 1})});
  EXPECT_THAT(Relaunch(1), IsEmpty());
  EXPECT_THAT(*controller->Checkpoints("jobs/a"), IsEmpty());
}

TEST_F(JobControllerCheckpointTest, HalfWritten_IsRemovedBeforeTheJobGoesOn) {
  RunWithOutput("a");
  ASSERT_TRUE(output_->Write("a/checkpoints/step-00000010-e0001/weights/config.json", "{").ok());
  ASSERT_TRUE(output_->Write("a/export-e0001/config.json", "{").ok());
  launcher.Exit({"a", 1});
  Settle();
  EXPECT_THAT(*output_->List("a"), IsEmpty());
}

TEST_F(JobControllerCheckpointTest, RemovedByTheRank_LeavesTheIndex) {
  const int64_t node = RunWithOutput("a");
  v1::RankReport removed = Committed({10, 1});
  Send(node, {removed, Committed({20, 1})});
  removed = Report();
  removed.mutable_checkpoint_removed()->set_step(10);
  removed.mutable_checkpoint_removed()->set_epoch(1);
  Send(node, {removed});
  ASSERT_THAT(*controller->Checkpoints("jobs/a"), SizeIs(1));
  EXPECT_EQ(controller->Checkpoints("jobs/a")->front().step(), 20);
}

TEST_F(JobControllerCheckpointTest, RestartsWithACheckpointBetween_AreNotGivenUp) {
  RunWithOutput("a");
  for (int32_t epoch = 1; epoch <= 6; ++epoch) {
    Commit({epoch * 10, epoch});
    Relaunch(epoch);
  }
  EXPECT_EQ(Get("a").restarts(), 6);
  EXPECT_EQ(StateOf("a"), "RUNNING");
}

TEST_F(JobControllerCheckpointTest, Resumption_CountsTheStepsThatAreTakenAgain) {
  const int64_t node = RunWithOutput("a");
  Commit({10, 1});
  Send(node, {Step(17), Committed({10, 1})});
  Relaunch(1);
  v1::RankReport resumed = Report();
  resumed.mutable_resumption()->set_step(10);
  Send(Attach("a"), {resumed});
  const auto page = controller->Events("jobs/a", 0, 100);
  EXPECT_EQ(page->events.back().resumption().lost_steps(), 7);
}

TEST_F(JobControllerCheckpointTest, GangsThatTellNothing_LoseNoStepTwice) {
  const int64_t node = RunWithOutput("a");
  Commit({10, 1});
  Send(node, {Step(17), Committed({10, 1})});
  for (const int32_t epoch : {1, 2}) {
    Relaunch(epoch);
    const auto attachment = controller->AttachNode(Hello("a"), nullptr);
    ASSERT_TRUE(attachment.ok()) << attachment.status();
    EXPECT_EQ(attachment->assignment.current_step(), epoch == 1 ? 17 : 10);
    v1::RankReport resumed = Report();
    resumed.mutable_resumption()->set_step(10);
    Send(attachment->id, {resumed});
    const auto page = controller->Events("jobs/a", 0, 100);
    EXPECT_EQ(page->events.back().resumption().lost_steps(), epoch == 1 ? 7 : 0);
  }
}

// --- with the thread that the server uses ---

TEST_F(JobControllerTest, Thread_ReconcilesWhenSomethingHappens) {
  std::promise<void> launched;
  launcher.during_launch = [&] { launched.set_value(); };
  controller->Start("127.0.0.1:8470");
  ASSERT_TRUE(controller->Create(Request("a")).ok());
  ASSERT_EQ(launched.get_future().wait_for(std::chrono::minutes(1)), std::future_status::ready);
  launcher.Exit({"a", 1}, FailureCause::kUserInput, "no");
  int64_t seen = 0;
  while (!controller->Events("jobs/a", seen, 100)->complete) {
    seen = controller->Events("jobs/a", 0, 100)->events.back().sequence();
    ASSERT_TRUE(*controller->WaitForEvents("jobs/a", seen, std::chrono::minutes(1)));
  }
  EXPECT_EQ(StateOf("a"), "FAILED");
}

}  // namespace
}  // namespace temper
