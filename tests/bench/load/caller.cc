// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/load/caller.h"

#include <utility>

#include "tests/bench/load/own_channel.h"
#include "tests/server/jobs/valid_spec.h"

namespace temper {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Jobs that wait in the queue meanwhile.
constexpr size_t kQueued = 20;

}  // namespace

Caller::Caller(const std::string& address, std::string job)
    : job_(std::move(job)), stub_(v1::TrainingService::NewStub(OwnChannel(address))) {
  for (const char* method : {"CreateJob", "CancelJob", "GetJob", "ListJobs", "ListJobs of an owner"}) {
    latencies_[method];
  }
  Repeat(milliseconds(100), [this] { return CreateAndCancel(); });
  Repeat(milliseconds(50), [this] { return Get(); });
  Repeat(milliseconds(200), [this] { return List(); });
  Repeat(milliseconds(500), [this] { return ListOfOwner(); });
}

Caller::~Caller() { Stop(); }

void Caller::Repeat(milliseconds period, std::function<grpc::Status()> call) {
  threads_.emplace_back([this, period, call = std::move(call)](const std::stop_token& stop) {
    for (auto due = steady_clock::now() + period; !stop.stop_requested(); due += period) {
      std::this_thread::sleep_until(due);
      if (const grpc::Status status = call(); !status.ok()) {
        std::lock_guard lock(mutex_);
        failures_.push_back(status.error_message());
      }
    }
  });
}

template <typename Call>
grpc::Status Caller::Timed(const char* method, Call call) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const auto start = steady_clock::now();
  const grpc::Status status = call(context);
  latencies_.at(method).Add(steady_clock::now() - start);
  return status;
}

grpc::Status Caller::CreateAndCancel() {
  v1::CreateJobRequest request;
  *request.mutable_job()->mutable_spec() = ValidSpec();
  v1::Job job;
  grpc::Status status = Timed("CreateJob", [&](auto& context) { return stub_->CreateJob(&context, request, &job); });
  if (!status.ok()) return status;
  created_.push_back(job.name());
  if (created_.size() <= kQueued) return status;
  v1::CancelJobRequest cancel;
  cancel.set_name(created_.front());
  created_.erase(created_.begin());
  return Timed("CancelJob", [&](auto& context) { return stub_->CancelJob(&context, cancel, &job); });
}

grpc::Status Caller::Get() {
  v1::GetJobRequest request;
  request.set_name("jobs/" + job_);
  v1::Job job;
  return Timed("GetJob", [&](auto& context) { return stub_->GetJob(&context, request, &job); });
}

grpc::Status Caller::List() {
  v1::ListJobsRequest request;
  request.set_page_size(50);
  v1::ListJobsResponse response;
  return Timed("ListJobs", [&](auto& context) { return stub_->ListJobs(&context, request, &response); });
}

grpc::Status Caller::ListOfOwner() {
  v1::ListJobsRequest request;
  request.set_page_size(50);
  request.set_owner("nobody");
  v1::ListJobsResponse response;
  return Timed("ListJobs of an owner", [&](auto& context) { return stub_->ListJobs(&context, request, &response); });
}

std::map<std::string, Latencies::Summary> Caller::Take() {
  std::map<std::string, Latencies::Summary> summaries;
  for (auto& [method, latencies] : latencies_) summaries[method] = latencies.Take();
  return summaries;
}

std::vector<std::string> Caller::Stop() {
  for (std::jthread& thread : threads_) thread.request_stop();
  threads_.clear();
  std::lock_guard lock(mutex_);
  return failures_;
}

}  // namespace temper
