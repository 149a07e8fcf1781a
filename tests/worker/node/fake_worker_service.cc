// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/node/fake_worker_service.h"

#include <algorithm>
#include <utility>

#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"

namespace temper {

FakeWorkerService::FakeWorkerService(v1::Assignment assignment) : assignment_(std::move(assignment)) { Start(); }

FakeWorkerService::~FakeWorkerService() { Shutdown(); }

void FakeWorkerService::Start() {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(address_, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  ASSERT_NE(server_, nullptr);
  address_ = "127.0.0.1:" + std::to_string(port);
}

void FakeWorkerService::Shutdown() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_.reset();
}

void FakeWorkerService::set_acknowledge(bool acknowledge) {
  std::lock_guard lock(mutex_);
  acknowledge_ = acknowledge;
}

void FakeWorkerService::set_refusal(grpc::Status refusal) {
  std::lock_guard lock(mutex_);
  refusal_ = std::move(refusal);
}

void FakeWorkerService::SendMeeting(const v1::Meeting& meeting) {
  std::lock_guard lock(mutex_);
  ASSERT_NE(stream_, nullptr);
  v1::AttachResponse response;
  *response.mutable_meeting() = meeting;
  stream_->Write(response);
}

void FakeWorkerService::SendStop(const std::string& reason, bool checkpoint, bool dump_stacks, bool gang_lost) {
  std::lock_guard lock(mutex_);
  ASSERT_NE(stream_, nullptr);
  v1::AttachResponse response;
  response.mutable_stop()->set_reason(reason);
  response.mutable_stop()->set_checkpoint(checkpoint);
  response.mutable_stop()->set_dump_stacks(dump_stacks);
  response.mutable_stop()->set_gang_lost(gang_lost);
  stream_->Write(response);
}

grpc::Status FakeWorkerService::Attach(grpc::ServerContext*,
                                       grpc::ServerReaderWriter<v1::AttachResponse, v1::AttachRequest>* stream) {
  v1::AttachRequest request;
  if (!stream->Read(&request) || !request.has_hello()) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "the first message must be Hello"};
  }
  {
    std::lock_guard lock(mutex_);
    hellos_.push_back(request.hello());
    changed_.notify_all();
    if (refusal_) return *refusal_;
    stream_ = stream;
    v1::AttachResponse response;
    *response.mutable_assignment() = assignment_;
    stream->Write(response);
  }
  while (stream->Read(&request)) {
    std::lock_guard lock(mutex_);
    if (request.has_heartbeat()) ++heartbeats_;
    if (request.has_report()) {
      Take(request.report());
      if (acknowledge_) {
        v1::AttachResponse response;
        response.mutable_ack()->set_rank(request.report().rank());
        response.mutable_ack()->set_sequence(request.report().sequence());
        stream->Write(response);
      }
    }
    changed_.notify_all();
  }
  std::lock_guard lock(mutex_);
  stream_ = nullptr;
  return grpc::Status::OK;
}

void FakeWorkerService::Take(const v1::RankReport& report) {
  int64_t& last = last_sequence_[report.rank()];
  if (report.sequence() <= last) {
    ++repeated_;
    return;
  }
  if (report.sequence() != last + 1) ++gaps_;
  last = report.sequence();
  reports_.push_back(report);
}

void FakeWorkerService::WaitFor(const std::function<bool()>& reached) {
  std::unique_lock lock(mutex_);
  EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), reached)) << "not reached within 20 s";
}

std::vector<v1::RankReport> FakeWorkerService::WaitForReports(
    const std::function<bool(const std::vector<v1::RankReport>&)>& reached) {
  WaitFor([&] { return reached(reports_); });
  std::lock_guard lock(mutex_);
  return reports_;
}

std::vector<v1::RankReport> FakeWorkerService::WaitForEnd() {
  return WaitForReports([](const auto& reports) {
    return std::any_of(reports.begin(), reports.end(), [](const v1::RankReport& report) { return report.has_end(); });
  });
}

std::vector<v1::Hello> FakeWorkerService::hellos() const {
  std::lock_guard lock(mutex_);
  return hellos_;
}

int FakeWorkerService::heartbeats() const {
  std::lock_guard lock(mutex_);
  return heartbeats_;
}

int FakeWorkerService::repeated() const {
  std::lock_guard lock(mutex_);
  return repeated_;
}

int FakeWorkerService::gaps() const {
  std::lock_guard lock(mutex_);
  return gaps_;
}

}  // namespace temper
