// SPDX-License-Identifier: Apache-2.0
#include "worker/session/session.h"

#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <optional>
#include <stdexcept>
#include <vector>

#include "common/failure.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "temper/v1/worker_service.pb.h"
#include "worker/session/frame.h"

namespace temper {
namespace {

using testing::HasSubstr;

// The node's end of the socket.
class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    int fds[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    node_ = fds[0];
    rank_ = fds[1];
  }
  void TearDown() override { CloseNode(); }

  void CloseNode() {
    if (node_ >= 0) close(node_);
    node_ = -1;
  }

  void Start(TrainFunction train) {
    exit_code_ =
        std::async(std::launch::async, [this, train] { return RunSession(rank_, {train, preflight_, verify_}); });
  }

  void Assign(bool preflight = false, v1::RankCommand command = {}) {
    v1::Assignment& assignment = *command.mutable_assignment();
    assignment.set_job("jobs/abc");
    assignment.set_epoch(2);
    assignment.set_preflight(preflight);
    assignment.mutable_create_time()->set_seconds(1'767'225'600);
    assignment.mutable_spec()->mutable_model()->set_uri("/m");
    assignment.mutable_spec()->mutable_data()->set_uri("/d");
    assignment.mutable_spec()->mutable_output()->set_uri("/o");
    assignment.mutable_spec()->mutable_training()->set_steps(2);
    ASSERT_TRUE(WriteMessage(node_, command).ok());
  }

  void Stop(const std::string& reason) {
    v1::RankCommand command;
    command.mutable_stop()->set_reason(reason);
    ASSERT_TRUE(WriteMessage(node_, command).ok());
  }

  void Hear(int64_t step) {
    v1::RankCommand command;
    command.mutable_step_heard()->set_step(step);
    ASSERT_TRUE(WriteMessage(node_, command).ok());
  }

  // The next report; nothing once the rank has closed its end.
  std::optional<v1::RankReport> ReadReport() {
    for (std::string payload;;) {
      if (*decoder_.Next(&payload)) {
        v1::RankReport report;
        EXPECT_TRUE(report.ParseFromString(payload));
        return report;
      }
      char bytes[4096];
      const ssize_t count = recv(node_, bytes, sizeof bytes, 0);
      if (count <= 0) return std::nullopt;
      decoder_.Append({bytes, static_cast<size_t>(count)});
    }
  }

  // Everything until then.
  std::vector<v1::RankReport> ReadReports() {
    std::vector<v1::RankReport> reports;
    while (auto report = ReadReport()) reports.push_back(*std::move(report));
    return reports;
  }

  FrameDecoder decoder_;
  int node_ = -1;
  int rank_ = -1;
  std::future<int> exit_code_;
  const VerifyFunction verify_ = [](const std::string& model, const VerifyRequest& request) {
    return absl::StatusOr<PrintedVerdict>(
        {.passed = false,
         .reasons = {"KL of " + model},
         .table = request.dtype + (request.layers ? " layers" : "") + (request.gradients ? " gradients" : ""),
         .json = R"({"passed": false, "max_kl": null})"});
  };
  const TrainFunction preflight_ = [](const TrainJob&, TrainObserver& observer, const StopSignal&) {
    observer.OnPreflight({.total_steps = 7, .backend = "native"});
    return absl::OkStatus();
  };
};

// Trains until it is stopped.
absl::Status TrainForever(const TrainJob&, TrainObserver& observer, const StopSignal& stop) {
  observer.OnPhase(TrainPhase::kTraining, 0);
  while (!stop.requested()) std::this_thread::yield();
  return absl::CancelledError("stopped");
}

TEST_F(SessionTest, RunSession_Preflight_LooksAndDoesNotTrain) {
  Start([](const TrainJob&, TrainObserver&, const StopSignal&) { return absl::InternalError("trained"); });
  Assign(/*preflight=*/true);
  const std::vector<v1::RankReport> reports = ReadReports();
  ASSERT_EQ(reports.size(), 2);
  EXPECT_EQ(reports[0].preflight().total_steps(), 7);
  EXPECT_EQ(reports[0].preflight().backend(), "native");
  EXPECT_EQ(reports[1].end().cause(), v1::FAILURE_CAUSE_UNSPECIFIED);
  EXPECT_EQ(exit_code_.get(), 0);
}

TEST_F(SessionTest, RunSession_Verify_ReportsTheVerdictAndTrainsNothing) {
  Start([](const TrainJob&, TrainObserver&, const StopSignal&) { return absl::InternalError("trained"); });
  v1::RankCommand command;
  v1::Assignment& assignment = *command.mutable_assignment();
  assignment.set_job("jobs/abc");
  assignment.mutable_spec()->mutable_model()->set_uri("/m");  // and nothing else
  assignment.mutable_verify()->set_dtype("bf16");
  assignment.mutable_verify()->set_layers(true);
  ASSERT_TRUE(WriteMessage(node_, command).ok());
  const std::vector<v1::RankReport> reports = ReadReports();
  ASSERT_EQ(reports.size(), 2);
  const v1::ModelVerdict& verdict = reports[0].verdict();
  EXPECT_FALSE(verdict.passed());
  EXPECT_THAT(verdict.reasons(), testing::ElementsAre("KL of /m"));
  EXPECT_EQ(verdict.table(), "bf16 layers");
  EXPECT_TRUE(verdict.figures().fields().at("max_kl").has_null_value());
  EXPECT_EQ(reports[1].end().cause(), v1::FAILURE_CAUSE_UNSPECIFIED);
  EXPECT_EQ(exit_code_.get(), 0);
}

TEST_F(SessionTest, RunSession_TrainingSucceeds_ReportsEverythingInOrder) {
  Start([](const TrainJob& job, TrainObserver& observer, const StopSignal&) {
    EXPECT_EQ(job.job_id, "abc");
    EXPECT_EQ(job.epoch, 2);
    EXPECT_EQ(job.created, 1'767'225'600);
    observer.OnPhase(TrainPhase::kTraining, 2);
    for (int step = 1; step <= 2; ++step) {
      StepMetrics metrics;
      metrics.step = step;
      observer.OnStep(metrics);
    }
    observer.OnLog(LogSeverity::kInfo, "nearly there");
    observer.OnExport({"/o/abc/export-e0002", 10, 3, R"({"transformers": {"passed": true}})"});
    return absl::OkStatus();
  });
  Assign();
  const auto reports = ReadReports();
  ASSERT_EQ(reports.size(), 6);
  EXPECT_EQ(reports[0].phase().phase(), v1::PHASE_TRAINING);
  EXPECT_EQ(reports[1].step().step(), 1);
  EXPECT_EQ(reports[2].step().step(), 2);
  EXPECT_EQ(reports[3].log().text(), "nearly there");
  EXPECT_EQ(reports[4].export_().files(), 3);
  const auto& proof = reports[4].export_().proof().fields();
  EXPECT_TRUE(proof.at("transformers").struct_value().fields().at("passed").bool_value());
  ASSERT_TRUE(reports[5].has_end());
  EXPECT_EQ(reports[5].end().cause(), v1::FAILURE_CAUSE_UNSPECIFIED);
  EXPECT_FALSE(reports[5].end().stopped());
  for (const auto& report : reports) {
    EXPECT_TRUE(report.has_time());
    EXPECT_EQ(report.sequence(), 0);
  }
  EXPECT_EQ(exit_code_.get(), 0);
}

TEST_F(SessionTest, RunSession_StepsThatNobodyMayHaveHeard_AreKeptAndToldAgainOnce) {
  std::vector<std::string> kept;
  Start([&](const TrainJob&, TrainObserver& observer, const StopSignal&) {
    for (int64_t step = 1; step <= 4; ++step) observer.OnStep({.step = step, .loss = 0.1 * static_cast<double>(step)});
    while (observer.Unheard().size() > 3) std::this_thread::yield();
    kept = observer.Unheard();
    return absl::OkStatus();
  });
  Assign();
  Hear(1);
  const std::vector<v1::RankReport> told = ReadReports();
  ASSERT_EQ(kept.size(), 3);
  CloseNode();

  SetUp();
  std::vector<std::string> kept_again;
  Start([&](const TrainJob&, TrainObserver& observer, const StopSignal&) {
    observer.OnResume(4, "/checkpoint", kept);
    kept_again = observer.Unheard();
    return absl::OkStatus();
  });
  v1::RankCommand command;
  command.mutable_assignment()->set_current_step(2);  // of what was kept, this much had been heard
  Assign(/*preflight=*/false, command);
  const std::vector<v1::RankReport> reports = ReadReports();
  ASSERT_EQ(reports.size(), 4);
  EXPECT_EQ(reports[0].step().step(), 3);
  EXPECT_EQ(reports[0].step().loss(), told[2].step().loss());
  EXPECT_EQ(reports[1].step().step(), 4);
  EXPECT_EQ(reports[2].resumption().step(), 4);
  EXPECT_THAT(kept_again, testing::ElementsAre(kept[1], kept[2]));  // until the server has heard
}

TEST_F(SessionTest, RunSession_TrainingFails_EndHasCauseAndMessage) {
  Start([](const TrainJob&, TrainObserver&, const StopSignal&) {
    return WithCause(absl::InternalError("loss is NaN at step 3"), FailureCause::kNumerics);
  });
  Assign();
  const auto reports = ReadReports();
  ASSERT_EQ(reports.size(), 1);
  EXPECT_EQ(reports[0].end().cause(), v1::FAILURE_CAUSE_NUMERICS);
  EXPECT_EQ(reports[0].end().message(), "loss is NaN at step 3");
  EXPECT_EQ(exit_code_.get(), 1);
}

class SessionRankTest : public SessionTest, public testing::WithParamInterface<int> {};

TEST_P(SessionRankTest, RunSession_OneOfTwo_KnowsWhereTheOtherIsAndOnlyRank0Speaks) {
  const int rank = GetParam();
  Start([rank](const TrainJob& job, TrainObserver& observer, const StopSignal&) {
    EXPECT_EQ(job.ranks, 2);
    EXPECT_EQ(job.rendezvous.value().rank, rank);
    EXPECT_EQ(job.rendezvous->size, 2);
    EXPECT_EQ(job.rendezvous->port, 4321);
    EXPECT_EQ(job.rendezvous->listen_fd, rank == 0 ? 7 : -1);
    observer.OnStep({.step = 1});
    EXPECT_EQ(observer.Unheard().size(), rank == 0 ? 1 : 0);
    return absl::OkStatus();
  });
  v1::RankCommand command;
  command.mutable_assignment()->set_world_size(2);
  command.mutable_assignment()->mutable_spec()->mutable_resources()->set_ranks_per_node(2);
  command.mutable_rendezvous()->set_rank(rank);
  command.mutable_rendezvous()->mutable_meeting()->set_port(4321);
  if (rank == 0) command.mutable_rendezvous()->set_listen_fd(7);
  Assign(/*preflight=*/false, command);
  const auto reports = ReadReports();
  ASSERT_EQ(reports.size(), rank == 0 ? 2 : 1);
  EXPECT_TRUE(reports.back().has_end());
  EXPECT_EQ(exit_code_.get(), 0);
}

INSTANTIATE_TEST_SUITE_P(, SessionRankTest, testing::Values(0, 1));

TEST_F(SessionTest, RunSession_ExceptionEscapes_IsReportedAsInternal) {
  Start(
      [](const TrainJob&, TrainObserver&, const StopSignal&) -> absl::Status { throw std::runtime_error("surprise"); });
  Assign();
  const auto reports = ReadReports();
  ASSERT_EQ(reports.size(), 1);
  EXPECT_EQ(reports[0].end().cause(), v1::FAILURE_CAUSE_INTERNAL);
  EXPECT_THAT(reports[0].end().message(), HasSubstr("surprise"));
}

TEST_F(SessionTest, RunSession_StopDuringTraining_EndsAsStoppedWithTheReason) {
  Start(TrainForever);
  Assign();
  EXPECT_TRUE(ReadReport()->has_phase());  // it trains
  Stop("cancelled by the user");
  const auto reports = ReadReports();
  EXPECT_TRUE(reports.back().end().stopped());
  EXPECT_EQ(reports.back().end().message(), "cancelled by the user");
  EXPECT_EQ(exit_code_.get(), 0);
}

TEST_F(SessionTest, RunSession_StopBeforeAssignment_NeverTrains) {
  Start([](const TrainJob&, TrainObserver&, const StopSignal&) -> absl::Status {
    ADD_FAILURE() << "trained";
    return absl::OkStatus();
  });
  Stop("too late");
  const auto reports = ReadReports();
  ASSERT_EQ(reports.size(), 1);
  EXPECT_TRUE(reports[0].end().stopped());
  EXPECT_EQ(exit_code_.get(), 0);
}

TEST_F(SessionTest, RunSession_NodeGone_Stops) {
  Start(TrainForever);
  Assign();
  EXPECT_TRUE(ReadReport()->has_phase());  // it trains
  CloseNode();
  EXPECT_EQ(exit_code_.get(), 0);
}

TEST_F(SessionTest, RunSession_JobWithoutModel_IsUserInput) {
  Start(TrainForever);
  v1::RankCommand command;
  command.mutable_assignment()->set_job("jobs/abc");
  ASSERT_TRUE(WriteMessage(node_, command).ok());
  const auto reports = ReadReports();
  ASSERT_EQ(reports.size(), 1);
  EXPECT_EQ(reports[0].end().cause(), v1::FAILURE_CAUSE_USER_INPUT);
  EXPECT_THAT(reports[0].end().message(), HasSubstr("model.uri"));
}

}  // namespace
}  // namespace temper
