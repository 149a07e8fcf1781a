// SPDX-License-Identifier: Apache-2.0
#include "worker/node/node.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/node/fake_worker_service.h"

namespace temper {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;

v1::Assignment Script(const std::string& script, int32_t ranks = 1) {
  v1::Assignment assignment;
  assignment.set_job("jobs/abc");
  assignment.set_epoch(1);
  assignment.set_world_size(ranks);
  assignment.set_ranks_per_node(ranks);
  assignment.mutable_spec()->mutable_model()->set_uri(script);
  assignment.mutable_spec()->mutable_data()->set_uri("/d");
  assignment.mutable_spec()->mutable_output()->set_uri("/o");
  assignment.mutable_spec()->mutable_training()->set_steps(3);
  return assignment;
}

// A node against a fake server, with a rank (fake_rank.cc) that follows a script.
class NodeTest : public testing::Test {
 protected:
  void Start(v1::Assignment assignment, int32_t node = 0) {
    service_ = std::make_unique<FakeWorkerService>(std::move(assignment));
    v1::Hello hello;
    hello.set_job("jobs/abc");
    hello.set_epoch(1);
    hello.set_node(node);
    node_ = std::make_unique<Node>(options_, ServerChannel(service_->address()), hello, link_options_);
    // The thread that starts ranks outlives them: it ends with Run().
    record_ = std::async(std::launch::async, [this] { return node_->Run(); });
  }

  void WaitForStep() {
    service_->WaitForReports([](const auto& reports) {
      return std::any_of(reports.begin(), reports.end(), [](const auto& report) { return report.has_step(); });
    });
  }

  // The reports that end a rank, in their order.
  std::vector<v1::RankReport> Ends(size_t ranks) {
    const auto is_end = [](const v1::RankReport& report) { return report.has_end(); };
    const auto reports = service_->WaitForReports([&](const auto& reports) {
      return std::count_if(reports.begin(), reports.end(), is_end) == static_cast<int64_t>(ranks);
    });
    std::vector<v1::RankReport> ends;
    std::copy_if(reports.begin(), reports.end(), std::back_inserter(ends), is_end);
    return ends;
  }

  // What a rank has in the job's log; −1: the node.
  static std::string Log(const std::vector<v1::RankReport>& reports, int32_t rank) {
    std::string text;
    for (const v1::RankReport& report : reports) {
      if (report.has_log() && report.rank() == rank) text += report.log().text() + "\n";
    }
    return text;
  }

  NodeOptions options_{.rank_binary = FAKE_RANK, .stop_grace = milliseconds(10'000)};
  ServerLinkOptions link_options_{.first_backoff = milliseconds(10), .last_backoff = milliseconds(50)};
  std::unique_ptr<FakeWorkerService> service_;
  std::unique_ptr<Node> node_;
  std::future<ExitRecord> record_;
};

TEST_F(NodeTest, Run_RankSucceeds_RelaysEverythingNumberedAndEndsLast) {
  Start(Script("succeed"));
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kOk);
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_UNSPECIFIED);
  const auto reports = service_->WaitForEnd();
  ASSERT_EQ(reports.size(), 5);  // phase, three steps, end
  for (size_t i = 0; i < reports.size(); ++i) {
    EXPECT_EQ(reports[i].rank(), 0);
    EXPECT_EQ(reports[i].sequence(), static_cast<int64_t>(i + 1));
  }
  EXPECT_TRUE(reports.back().has_end());
  EXPECT_EQ(reports.back().end().cause(), v1::FAILURE_CAUSE_UNSPECIFIED);
}

TEST_F(NodeTest, Run_StepsAcknowledged_TheRankKnows) {
  Start(Script("until-heard"));
  EXPECT_EQ(record_.get().exit, NodeExit::kOk);
}

TEST_F(NodeTest, Run_TwoRanks_EachHasItsNumberAndOneEnd) {
  Start(Script("succeed", /*ranks=*/2));
  EXPECT_EQ(record_.get().exit, NodeExit::kOk);
  const auto reports = service_->WaitForReports([](const auto& reports) { return reports.size() == 6; });
  for (int32_t rank : {0, 1}) {
    EXPECT_EQ(std::count_if(reports.begin(), reports.end(),
                            [&](const auto& report) { return report.rank() == rank && report.has_end(); }),
              1);
  }
  EXPECT_EQ(service_->gaps(), 0);
}

// One rank dies, and the others find out: which end is told first must not depend on who was faster.
TEST_F(NodeTest, Run_RankOfSeveralDies_ItsEndIsToldBeforeThatOfThoseWhoMissIt) {
  Start(Script("rank-2-dies", /*ranks=*/3));
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kRankFailed);
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_RANK_LOST);
  EXPECT_THAT(record.message, HasSubstr("SIGKILL"));
  const auto ends = Ends(3);
  EXPECT_EQ(ends.front().rank(), 2);
  EXPECT_THAT(ends.front().end().message(), HasSubstr("SIGKILL"));
}

TEST_F(NodeTest, Run_RankOfSeveralHangs_ThoseWhoMissItEndTheGang) {
  options_.stop_grace = milliseconds(50);
  Start(Script("rank-1-hangs", /*ranks=*/2));
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kRankFailed);
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_RANK_LOST);
  EXPECT_EQ(record.message, "rank 0 has lost another");
  const auto ends = Ends(2);
  EXPECT_EQ(ends[0].end().cause(), v1::FAILURE_CAUSE_RANK_LOST);
  EXPECT_EQ(ends[1].rank(), 1);
  EXPECT_TRUE(ends[1].end().stopped());
}

TEST_F(NodeTest, Run_RankOfSeveralFails_TheOthersAreStopped) {
  Start(Script("rank-1-fails", /*ranks=*/2));
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kRankFailed);
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_NUMERICS);
  const auto ends = Ends(2);
  EXPECT_EQ(ends[0].rank(), 1);
  EXPECT_TRUE(ends[1].end().stopped());
}

TEST_F(NodeTest, Run_SeveralRanks_MeetWhereRank0Listens) {
  Start(Script("meet", /*ranks=*/3));
  EXPECT_EQ(record_.get().exit, NodeExit::kOk);
  Ends(3);
}

TEST_F(NodeTest, Run_StepHangs_TellsWhatTheRankDoesAndEndsIt) {
  v1::Assignment assignment = Script("step-hangs");
  assignment.mutable_spec()->mutable_hang()->set_step_minutes(0.005);
  Start(std::move(assignment));
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kRankFailed);
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_HANG);
  EXPECT_THAT(record.message, AllOf(HasSubstr("a step has taken"), HasSubstr("and may take 0.3 s")));
  const auto reports = service_->WaitForEnd();
  EXPECT_EQ(reports.back().end().cause(), v1::FAILURE_CAUSE_HANG);
  EXPECT_THAT(Log(reports, -1), HasSubstr("the gang hangs"));
  // The thread that trains, by the names of its functions.
  EXPECT_THAT(Log(reports, 0),
              AllOf(HasSubstr("stack of"), HasSubstr("temper::RunSession"), HasSubstr("fake_rank+0x")));
}

TEST_F(NodeTest, Run_RankIsStopped_TheKernelSaysSo) {
  options_.stacks_grace = milliseconds(200);
  v1::Assignment assignment = Script("step-hangs", /*ranks=*/2);
  assignment.mutable_spec()->mutable_hang()->set_step_minutes(0.005);
  Start(std::move(assignment));
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_HANG);
  EXPECT_THAT(record.message, HasSubstr("rank 1 does not answer"));
  for (const v1::RankReport& end : Ends(2)) EXPECT_EQ(end.end().cause(), v1::FAILURE_CAUSE_HANG);
  const auto reports = service_->WaitForEnd();
  EXPECT_THAT(Log(reports, 0), HasSubstr("temper::RunSession"));
  EXPECT_THAT(Log(reports, 1), HasSubstr("T (stopped)"));
}

TEST_F(NodeTest, Run_HangsOutsideOfAStep_HasItsOwnLimit) {
  v1::Assignment assignment = Script("step-hangs-not");
  assignment.mutable_spec()->mutable_hang()->set_other_minutes(0.005);
  Start(std::move(assignment));
  EXPECT_THAT(record_.get().message, HasSubstr("hang.other_minutes"));
}

TEST_F(NodeTest, Run_ServerSaysTheGangHangs_RanksTellWhatTheyDoBeforeTheyAreStopped) {
  options_.stop_grace = milliseconds(500);
  Start(Script("ignore-stop"));
  WaitForStep();
  service_->SendStop("no word from the gang", /*checkpoint=*/false, /*dump_stacks=*/true);
  EXPECT_EQ(record_.get().exit, NodeExit::kStopped);
  EXPECT_THAT(Log(service_->WaitForEnd(), 0), HasSubstr("temper::RunSession"));
}

// What the server tells node 1 of 2, with two ranks each.
v1::Assignment OfTwoNodes(const std::string& script) {
  v1::Assignment assignment = Script(script, /*ranks=*/2);
  assignment.set_world_size(4);
  return assignment;
}

TEST_F(NodeTest, Run_OneNodeOfSeveral_StartsItsRanksWhenAllAreThere) {
  // Node 0 and its ranks.
  sockaddr_in address = {.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(bind(listener, any, size), 0);
  ASSERT_EQ(listen(listener, 4), 0);
  ASSERT_EQ(getsockname(listener, any, &size), 0);

  link_options_.heartbeat_interval = milliseconds(20);
  Start(OfTwoNodes("meet"), /*node=*/1);
  service_->WaitFor([this] { return service_->heartbeats_ > 0; });
  EXPECT_THAT(service_->WaitForReports([](const auto&) { return true; }), testing::IsEmpty()) << "nothing runs yet";
  EXPECT_FALSE(service_->hellos()[0].has_meeting());
  v1::Meeting meeting;
  meeting.set_host("127.0.0.1");
  meeting.set_port(ntohs(address.sin_port));
  service_->SendMeeting(meeting);
  for (int rank = 2; rank < 4; ++rank) close(accept(listener, nullptr, nullptr));
  close(listener);
  EXPECT_EQ(record_.get().exit, NodeExit::kOk);
  const auto ends = Ends(2);
  EXPECT_EQ(std::min(ends[0].rank(), ends[1].rank()), 2);
  EXPECT_EQ(std::max(ends[0].rank(), ends[1].rank()), 3);
}

TEST_F(NodeTest, Run_StopBeforeAllNodesAreThere_Ends) {
  Start(OfTwoNodes("meet"));
  service_->WaitFor([this] { return !service_->hellos_.empty() && service_->hellos_[0].meeting().port() > 0; });
  service_->SendStop("node 1 did not come");
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kStopped);
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_UNSPECIFIED);
}

TEST_F(NodeTest, Run_AddressIsNotOfThisHost_IsALaunchFailure) {
  options_.address = "192.0.2.1";
  Start(Script("succeed"));
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_LAUNCH);
  EXPECT_THAT(record.message, HasSubstr("can't listen on 192.0.2.1"));
}

// The others may be faster than the node to say that a rank is dead: that is no reason to forget how it died.
TEST_F(NodeTest, Run_RankDiesAfterAnotherNodeHasMissedIt_ItsEndIsStillTold) {
  Start(Script("dies-when-stopped"));
  WaitForStep();
  service_->SendStop("rank 1 of 2 has lost rank 0", /*checkpoint=*/false, /*dump_stacks=*/false, /*gang_lost=*/true);
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kRankFailed);
  EXPECT_THAT(record.message, HasSubstr("SIGKILL"));
  EXPECT_EQ(service_->WaitForEnd().back().end().cause(), v1::FAILURE_CAUSE_RANK_LOST);
}

TEST_F(NodeTest, Run_RankFails_CauseIsItsOwn) {
  Start(Script("fail"));
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kRankFailed);
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_NUMERICS);
  EXPECT_EQ(record.message, "loss is NaN");
  EXPECT_EQ(service_->WaitForEnd().back().end().cause(), v1::FAILURE_CAUSE_NUMERICS);
}

TEST_F(NodeTest, Run_RankDiesBeforeItCanSpeak_IsExplained) {
  Start(Script("exit-7"));
  EXPECT_EQ(record_.get().exit, NodeExit::kRankFailed);
  const auto reports = service_->WaitForEnd();
  const v1::RankEnd end = reports.back().end();
  EXPECT_EQ(end.cause(), v1::FAILURE_CAUSE_RANK_LOST);
  EXPECT_EQ(end.exit_status(), 7);
  EXPECT_THAT(end.message(), AllOf(HasSubstr("exit status 7"), HasSubstr("something odd happened")));
  // The line is in the log, too.
  EXPECT_TRUE(std::any_of(reports.begin(), reports.end(), [](const auto& report) {
    return report.log().text() == "something odd happened" && report.log().severity() == v1::LOG_SEVERITY_WARNING;
  }));
}

TEST_F(NodeTest, Run_RankKilled_NamesTheSignal) {
  Start(Script("kill-itself"));
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kRankFailed);
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_RANK_LOST);
  EXPECT_THAT(record.message, HasSubstr("SIGKILL"));
  EXPECT_EQ(service_->WaitForEnd().back().end().exit_status(), -SIGKILL);
}

TEST_F(NodeTest, Run_NoRankBinary_IsALaunchFailure) {
  options_.rank_binary = "/nonexistent/temper-rank";
  Start(Script("succeed"));
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kRankFailed);
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_LAUNCH);
  EXPECT_EQ(service_->WaitForEnd().back().end().cause(), v1::FAILURE_CAUSE_LAUNCH);
}

TEST_F(NodeTest, Run_ServerSaysStop_RankStopsWithThatReason) {
  Start(Script("until-stopped"));
  WaitForStep();
  service_->SendStop("cancelled by the user");
  EXPECT_EQ(record_.get().exit, NodeExit::kStopped);
  const v1::RankEnd end = service_->WaitForEnd().back().end();
  EXPECT_TRUE(end.stopped());
  EXPECT_EQ(end.cause(), v1::FAILURE_CAUSE_UNSPECIFIED);
  EXPECT_EQ(end.message(), "cancelled by the user");
}

TEST_F(NodeTest, Run_RankIgnoresStop_IsKilledAfterTheGrace) {
  options_.stop_grace = milliseconds(50);
  Start(Script("ignore-stop"));
  WaitForStep();
  service_->SendStop("cancelled by the user");
  EXPECT_EQ(record_.get().exit, NodeExit::kStopped);
  const v1::RankEnd end = service_->WaitForEnd().back().end();
  EXPECT_TRUE(end.stopped());
  EXPECT_EQ(end.exit_status(), -SIGKILL);
  EXPECT_THAT(end.message(), AllOf(HasSubstr("cancelled by the user"), HasSubstr("was killed")));
}

TEST_F(NodeTest, Terminate_RunningRank_EndsAsPreempted) {
  Start(Script("until-stopped"));
  WaitForStep();
  node_->Terminate("the node was told to end by SIGTERM");
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kPreempted);
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_PREEMPTED);
  const auto reports = service_->WaitForEnd();
  EXPECT_EQ(reports[reports.size() - 2].checkpoint().uri(), "/o/checkpoint");
  const v1::RankEnd end = reports.back().end();
  EXPECT_TRUE(end.stopped());
  EXPECT_EQ(end.cause(), v1::FAILURE_CAUSE_PREEMPTED);
}

TEST_F(NodeTest, Run_ServerSaysStopWithACheckpoint_RankHasAllTheTimeItNeeds) {
  options_.stop_grace = milliseconds(1);
  Start(Script("until-stopped"));
  WaitForStep();
  service_->SendStop("paused", /*checkpoint=*/true);
  EXPECT_EQ(record_.get().exit, NodeExit::kStopped);
  const auto reports = service_->WaitForEnd();
  // A rank that has said that it is done may be killed, and may have had more to say.
  EXPECT_TRUE(std::any_of(reports.begin(), reports.end(), [](const auto& report) { return report.has_checkpoint(); }));
  EXPECT_EQ(reports.back().end().message(), "paused");
}

TEST_F(NodeTest, Run_StopThatKeepsNothing_OverrulesOneWithACheckpoint) {
  options_.stop_grace = milliseconds(50);
  Start(Script("ignore-stop"));
  WaitForStep();
  service_->SendStop("paused", /*checkpoint=*/true);
  service_->SendStop("cancelled by the user");
  EXPECT_EQ(record_.get().exit, NodeExit::kStopped);
  EXPECT_EQ(service_->WaitForEnd().back().end().exit_status(), -SIGKILL);
}

TEST_F(NodeTest, Terminate_RankIsTooSlow_IsKilledAfterTheGraceForCheckpoints) {
  options_.checkpoint_grace = milliseconds(50);
  Start(Script("ignore-stop"));
  WaitForStep();
  node_->Terminate("the node was told to end by SIGTERM");
  EXPECT_EQ(record_.get().exit, NodeExit::kPreempted);
}

TEST_F(NodeTest, Terminate_WithoutAServer_StillEnds) {
  service_ = std::make_unique<FakeWorkerService>(Script("succeed"));
  service_->Shutdown();
  node_ = std::make_unique<Node>(options_, ServerChannel(service_->address()), v1::Hello(), link_options_);
  record_ = std::async(std::launch::async, [this] { return node_->Run(); });
  node_->Terminate("the node was told to end by SIGTERM");
  EXPECT_EQ(record_.get().exit, NodeExit::kPreempted);
}

TEST_F(NodeTest, Run_ServerRefusesAfterRestart_StopsTheRank) {
  Start(Script("until-stopped"));
  WaitForStep();
  service_->Shutdown();
  service_->set_refusal({grpc::StatusCode::FAILED_PRECONDITION, "epoch 1 is over"});
  service_->Start();
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kRefused);
  EXPECT_THAT(record.message, HasSubstr("epoch 1 is over"));
}

TEST_F(NodeTest, Run_ServerAwayForTooLong_StopsTheRank) {
  link_options_.absence_limit = milliseconds(100);
  Start(Script("until-stopped"));
  WaitForStep();
  service_->Shutdown();
  const ExitRecord record = record_.get();
  EXPECT_EQ(record.exit, NodeExit::kServerAway);
  EXPECT_EQ(record.cause, v1::FAILURE_CAUSE_PREEMPTED);
}

TEST_F(NodeTest, Run_ServerAwayForAWhile_NothingIsLost) {
  Start(Script("until-stopped"));
  WaitForStep();
  service_->Shutdown();
  service_->Start();
  service_->WaitFor([this] { return service_->hellos_.size() >= 2; });
  service_->WaitForReports([](const auto& reports) { return reports.size() == 4; });
  service_->SendStop("done");
  EXPECT_EQ(record_.get().exit, NodeExit::kStopped);
  EXPECT_EQ(service_->gaps(), 0);
}

}  // namespace
}  // namespace temper
