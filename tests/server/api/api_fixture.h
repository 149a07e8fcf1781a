// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "client/channel.h"
#include "client/training_client.h"
#include "common/clock.h"
#include "server/api/rpc_server.h"
#include "server/api/watch_hub.h"
#include "server/jobs/job_controller.h"
#include "server/jobs/job_store.h"
#include "server/jobs/upload_store.h"
#include "tests/common/scratch_directory.h"
#include "tests/server/jobs/fake_launcher.h"
#include "tests/server/jobs/valid_spec.h"

namespace temper {

// Spins until `condition` holds; false after a time that only a broken test reaches.
template <typename Condition>
bool Eventually(Condition condition, std::chrono::seconds limit = std::chrono::seconds(20)) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// The real server in this process, on loopback, with gangs that are played by the test.
class ApiTest : public testing::Test {
 protected:
  void SetUp() override { Boot(); }
  void TearDown() override { Halt(); }

  void Boot(int port = 0) {
    auto opened = JobStore::Open(scratch.path() / "data");
    ASSERT_TRUE(opened.ok()) << opened.status();
    store = *std::move(opened);
    JobControllerOptions options;
    options.runs_dir = "/runs";
    options.max_preflights = 0;
    options.slots = {{"cpu", 8}};
    auto upload_store = UploadStore::Open(upload_options, clock);
    ASSERT_TRUE(upload_store.ok()) << upload_store.status();
    uploads = *std::move(upload_store);
    options.uploads = uploads.get();
    controller = std::make_unique<JobController>(*store, launcher, clock, options);
    hub = std::make_unique<WatchHub>(watch_options);
    controller->AddListener(
        [this](const v1::Job& job, const v1::JobEvent& event) { hub->OnEvent(job.name(), event.sequence()); });
    ASSERT_TRUE(controller->Recover().ok());
    rpc_options.address = {"127.0.0.1", port};
    auto started = RpcServer::Start(rpc_options, *controller, *hub, *uploads, authenticator,
                                    [this](std::string_view method, const absl::Status& status) {
                                      std::lock_guard lock(mutex);
                                      ended.emplace_back(method, status.code());
                                    });
    ASSERT_TRUE(started.ok()) << started.status();
    server = *std::move(started);
  }

  // What a server does that ends, or is ended.
  void Halt() {
    if (hub != nullptr) hub->Stop();
    server.reset();
    hub.reset();
    controller.reset();
    uploads.reset();
    store.reset();
  }

  TrainingClient Client(ClientOptions options = {}) {
    return TrainingClient(MakeChannel(server->address().Text()), std::move(options));
  }

  // A connection that holds next to nothing: where it is not read, the server can't write on.
  std::shared_ptr<grpc::Channel> NarrowChannel() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 16);
    return grpc::CreateCustomChannel(server->address().Text(), grpc::InsecureChannelCredentials(), arguments);
  }

  std::unique_ptr<v1::WorkerService::Stub> WorkerStub() {
    return v1::WorkerService::NewStub(
        grpc::CreateChannel(server->address().Text(), grpc::InsecureChannelCredentials()));
  }

  void Create(const std::string& id) {
    v1::CreateJobRequest request;
    *request.mutable_job()->mutable_spec() = ValidSpec();
    request.set_job_id(id);
    const auto job = controller->Create(request);
    ASSERT_TRUE(job.ok()) << job.status();
  }

  void Settle() {
    for (int i = 0; i < 4; ++i) controller->Reconcile(server->address().Text());
  }

  v1::Hello HelloOf(const std::string& id, const std::string& incarnation = "1") {
    v1::Hello hello;
    hello.set_job("jobs/" + id);
    hello.set_incarnation(incarnation);
    for (const GangSpec& launch : launcher.launches) {
      if (launch.key.job_id != id) continue;
      hello.set_epoch(launch.key.epoch);
      hello.set_token(launch.token);
    }
    return hello;
  }

  // A gang that reports without a stream.
  int64_t Run(const std::string& id) {
    Create(id);
    Settle();
    const auto attachment = controller->AttachNode(HelloOf(id), [](const v1::AttachResponse&) {});
    EXPECT_TRUE(attachment.ok()) << attachment.status();
    return attachment.ok() ? attachment->id : 0;
  }

  static v1::RankReport LogReport(int64_t sequence, const std::string& text) {
    v1::RankReport report;
    report.set_sequence(sequence);
    report.mutable_log()->set_severity(v1::LOG_SEVERITY_INFO);
    report.mutable_log()->set_text(text);
    return report;
  }
  static v1::RankReport StepReport(int64_t sequence, int64_t step) {
    v1::RankReport report;
    report.set_sequence(sequence);
    report.mutable_step()->set_step(step);
    report.mutable_step()->set_total_steps(10);
    return report;
  }
  static v1::RankReport EndReport(int64_t sequence) {
    v1::RankReport report;
    report.set_sequence(sequence);
    report.mutable_end();
    return report;
  }

  void Report(int64_t attachment, const std::vector<v1::RankReport>& reports) {
    const auto acks = controller->HandleReports(attachment, reports);
    ASSERT_TRUE(acks.ok()) << acks.status();
  }

  int CountEnded(std::string_view method, absl::StatusCode code) {
    std::lock_guard lock(mutex);
    int count = 0;
    for (const auto& [name, ended_with] : ended) count += name == method && ended_with == code;
    return count;
  }

  ScratchDirectory scratch;
  FakeClock clock;
  FakeLauncher launcher;
  WatchOptions watch_options;
  RpcServerOptions rpc_options;
  UploadOptions upload_options{.directory = scratch.path() / "data/uploads"};
  std::unique_ptr<JobStore> store;
  std::unique_ptr<UploadStore> uploads;
  std::unique_ptr<JobController> controller;
  std::unique_ptr<WatchHub> hub;
  const Authenticator authenticator{nullptr};
  std::unique_ptr<RpcServer> server;
  std::mutex mutex;
  std::vector<std::pair<std::string, absl::StatusCode>> ended;  // calls, as the observer was told
};

}  // namespace temper
