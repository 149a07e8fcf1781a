// SPDX-License-Identifier: Apache-2.0
#include "worker/node/server_link.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/node/fake_worker_service.h"

namespace temper {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

v1::RankReport Step(int64_t step) {
  v1::RankReport report;
  report.mutable_step()->set_step(step);
  return report;
}

v1::Assignment Assignment() {
  v1::Assignment assignment;
  assignment.set_job("jobs/abc");
  return assignment;
}

class ServerLinkTest : public testing::Test {
 protected:
  void Connect() {
    v1::Hello hello;
    hello.set_job("jobs/abc");
    hello.set_epoch(1);
    hello.set_token("secret");
    hello.set_incarnation("me");
    link_ = std::make_unique<ServerLink>(
        ServerChannel(service_.address()), hello, options_,
        ServerLink::Events{
            .on_assignment = [this](const v1::Assignment& assignment) { assignments_.set_value(assignment); },
            .on_stop = [this](const v1::Stop& stop) { stop_.set_value(stop); },
            .on_step_heard = [this](int64_t step) { heard_ = step; },
            .on_drained =
                [this] {
                  std::lock_guard lock(mutex_);
                  drained_.notify_all();
                },
            .on_lost = [this](const absl::Status& status) { lost_.set_value(status); }});
  }

  void WaitUntilDrained() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(drained_.wait_for(lock, std::chrono::seconds(20), [this] { return link_->drained(); }));
  }

  FakeWorkerService service_{Assignment()};
  // No test waits for answer_timeout unless it sets it.
  ServerLinkOptions options_{.heartbeat_interval = milliseconds(20),
                             .answer_timeout = milliseconds(60'000),
                             .first_backoff = milliseconds(10),
                             .last_backoff = milliseconds(50),
                             .window = 4};
  std::promise<v1::Assignment> assignments_;  // set twice: throws
  std::promise<v1::Stop> stop_;
  std::atomic<int64_t> heard_ = 0;
  std::promise<absl::Status> lost_;
  std::mutex mutex_;
  std::condition_variable drained_;
  std::unique_ptr<ServerLink> link_;
};

TEST_F(ServerLinkTest, Attach_Hello_IsAnsweredAndHeartbeatsFollow) {
  Connect();
  EXPECT_EQ(assignments_.get_future().get().job(), "jobs/abc");
  service_.WaitFor([this] { return service_.heartbeats_ >= 2; });
  const auto hellos = service_.hellos();
  ASSERT_EQ(hellos.size(), 1);
  EXPECT_EQ(hellos[0].token(), "secret");
  EXPECT_EQ(hellos[0].incarnation(), "me");
}

TEST_F(ServerLinkTest, Report_MoreThanTheWindow_AllArriveOnceInOrder) {
  Connect();
  for (int64_t step = 1; step <= 50; ++step) link_->Report(Step(step));
  WaitUntilDrained();
  const auto reports = service_.WaitForReports([](const auto& reports) { return reports.size() == 50; });
  for (int64_t i = 0; i < 50; ++i) EXPECT_EQ(reports[static_cast<size_t>(i)].step().step(), i + 1);
  EXPECT_EQ(service_.repeated(), 0);
  while (heard_ < 50) std::this_thread::yield();
}

TEST_F(ServerLinkTest, Report_ServerGoneBeforeAcknowledging_IsRepeatedWithItsNumber) {
  service_.set_acknowledge(false);
  Connect();
  for (int64_t step = 1; step <= 3; ++step) link_->Report(Step(step));
  service_.WaitForReports([](const auto& reports) { return reports.size() == 3; });
  service_.Shutdown();
  link_->Report(Step(4));
  service_.set_acknowledge(true);
  service_.Start();
  WaitUntilDrained();
  const auto reports = service_.WaitForReports([](const auto& reports) { return reports.size() == 4; });
  EXPECT_EQ(reports[3].step().step(), 4);
  EXPECT_EQ(service_.repeated(), 3);
  EXPECT_EQ(service_.gaps(), 0);
  const auto hellos = service_.hellos();
  EXPECT_GE(hellos.size(), 2u);
  EXPECT_EQ(hellos.back().incarnation(), hellos.front().incarnation());
}

TEST_F(ServerLinkTest, Attach_ServerSaysStop_IsPassedOn) {
  Connect();
  assignments_.get_future().get();
  service_.SendStop("cancelled");
  EXPECT_EQ(stop_.get_future().get().reason(), "cancelled");
}

TEST_F(ServerLinkTest, Attach_Refused_IsFinal) {
  service_.set_refusal({grpc::StatusCode::FAILED_PRECONDITION, "epoch 1 is over"});
  Connect();
  const absl::Status status = lost_.get_future().get();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::string(status.message()), "epoch 1 is over");
  EXPECT_EQ(service_.hellos().size(), 1);
}

TEST_F(ServerLinkTest, Attach_NoServerForTooLong_GivesUp) {
  service_.Shutdown();
  options_.absence_limit = milliseconds(100);
  Connect();
  const absl::Status status = lost_.get_future().get();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("0.1 s"));
}

TEST_F(ServerLinkTest, Attach_ServerThatDoesNotAnswer_IsGivenUpAndTriedAgain) {
  // A listening socket that nobody accepts from.
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof address;
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  options_.answer_timeout = milliseconds(50);
  options_.absence_limit = milliseconds(200);
  std::promise<absl::Status> lost;
  const std::string server = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  ServerLink link(ServerChannel(server, /*connect_limit=*/milliseconds(100)), {}, options_,
                  {.on_lost = [&](const absl::Status& status) { lost.set_value(status); }});
  EXPECT_EQ(lost.get_future().get().code(), absl::StatusCode::kUnavailable);
  link.Close();
  close(listener);
}

TEST_F(ServerLinkTest, Close_ReportsUnacknowledged_DoesNotWait) {
  service_.set_acknowledge(false);
  Connect();
  link_->Report(Step(1));
  service_.WaitForReports([](const auto& reports) { return reports.size() == 1; });
  link_->Close();
  EXPECT_FALSE(link_->drained());
}

}  // namespace
}  // namespace temper
