// SPDX-License-Identifier: Apache-2.0
#include "client/training_client.h"

#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/rpc/status.h"

namespace temper {
namespace {

constexpr std::string_view kJobPrefix = "jobs/";

}  // namespace

// One call's context, cancelled when the client is told to stop.
class TrainingClient::Call {
 public:
  explicit Call(const ClientOptions& options) : cancel_(options.stop, Cancel{&context_}) {
    if (!options.token.empty()) context_.AddMetadata("authorization", absl::StrCat("Bearer ", options.token));
  }
  grpc::ClientContext* context() { return &context_; }

 private:
  struct Cancel {
    grpc::ClientContext* context;
    void operator()() const { context->TryCancel(); }
  };
  grpc::ClientContext context_;
  std::stop_callback<Cancel> cancel_;
};

std::string ToJobName(std::string_view id_or_name) {
  return id_or_name.starts_with(kJobPrefix) ? std::string(id_or_name) : std::string(kJobPrefix).append(id_or_name);
}

std::string ToJobId(std::string_view name) {
  return std::string(name.starts_with(kJobPrefix) ? name.substr(kJobPrefix.size()) : name);
}

std::string CheckpointName(std::string_view job, int64_t step) {
  return absl::StrCat(ToJobName(job), "/checkpoints/", step);
}

std::string NewRequestId() {
  std::random_device device;
  const auto bits = [&] { return (static_cast<uint64_t>(device()) << 32) | device(); };
  const uint64_t high = (bits() & ~0xF000ull) | 0x4000ull;
  const uint64_t low = (bits() & ~(0xC0ull << 56)) | (0x80ull << 56);
  return absl::StrFormat("%08x-%04x-%04x-%04x-%012x", high >> 32, (high >> 16) & 0xFFFF, high & 0xFFFF, low >> 48,
                         low & 0xFFFFFFFFFFFF);
}

TrainingClient::TrainingClient(std::shared_ptr<grpc::Channel> channel, ClientOptions options)
    : channel_(std::move(channel)), stub_(v1::TrainingService::NewStub(channel_)), options_(std::move(options)) {}

TrainingClient TrainingClient::WithoutStop() const {
  return TrainingClient(channel_, {.token = options_.token, .deadline = options_.deadline});
}

template <typename Request, typename Response>
absl::StatusOr<Response> TrainingClient::Unary(grpc::Status (v1::TrainingService::Stub::*method)(grpc::ClientContext*,
                                                                                                 const Request&,
                                                                                                 Response*),
                                               const Request& request) const {
  Call call(options_);
  call.context()->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(options_.deadline));
  Response response;
  if (auto status = FromGrpcStatus((*stub_.*method)(call.context(), request, &response)); !status.ok()) return status;
  return response;
}

absl::StatusOr<v1::Job> TrainingClient::CreateJob(v1::CreateJobRequest request) const {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  return Unary(&v1::TrainingService::Stub::CreateJob, request);
}

absl::StatusOr<v1::Job> TrainingClient::GetJob(std::string_view job) const {
  v1::GetJobRequest request;
  request.set_name(ToJobName(job));
  return Unary(&v1::TrainingService::Stub::GetJob, request);
}

absl::StatusOr<v1::ListJobsResponse> TrainingClient::ListJobs(const v1::ListJobsRequest& request) const {
  return Unary(&v1::TrainingService::Stub::ListJobs, request);
}

absl::StatusOr<v1::Job> TrainingClient::CancelJob(std::string_view job) const {
  v1::CancelJobRequest request;
  request.set_name(ToJobName(job));
  return Unary(&v1::TrainingService::Stub::CancelJob, request);
}

absl::StatusOr<v1::Job> TrainingClient::PauseJob(std::string_view job) const {
  v1::PauseJobRequest request;
  request.set_name(ToJobName(job));
  return Unary(&v1::TrainingService::Stub::PauseJob, request);
}

absl::StatusOr<v1::Job> TrainingClient::ResumeJob(std::string_view job) const {
  v1::ResumeJobRequest request;
  request.set_name(ToJobName(job));
  return Unary(&v1::TrainingService::Stub::ResumeJob, request);
}

absl::Status TrainingClient::DeleteJob(std::string_view job) const {
  v1::DeleteJobRequest request;
  request.set_name(ToJobName(job));
  return Unary(&v1::TrainingService::Stub::DeleteJob, request).status();
}

absl::StatusOr<v1::QueryMetricsResponse> TrainingClient::QueryMetrics(const v1::QueryMetricsRequest& request) const {
  return Unary(&v1::TrainingService::Stub::QueryMetrics, request);
}

absl::StatusOr<v1::ListCheckpointsResponse> TrainingClient::ListCheckpoints(std::string_view job) const {
  v1::ListCheckpointsRequest request;
  request.set_parent(ToJobName(job));
  return Unary(&v1::TrainingService::Stub::ListCheckpoints, request);
}

absl::StatusOr<v1::ListFamiliesResponse> TrainingClient::ListFamilies() const {
  return Unary(&v1::TrainingService::Stub::ListFamilies, v1::ListFamiliesRequest());
}

absl::StatusOr<v1::ListArtifactsResponse> TrainingClient::ListArtifacts(std::string_view parent) const {
  v1::ListArtifactsRequest request;
  request.set_parent(ToJobName(parent));
  return Unary(&v1::TrainingService::Stub::ListArtifacts, request);
}

absl::Status TrainingClient::WatchJob(std::string_view job, int64_t after_sequence,
                                      absl::FunctionRef<bool(const v1::JobEvent&)> sink) const {
  Call call(options_);
  v1::WatchJobRequest request;
  request.set_name(ToJobName(job));
  request.set_after_sequence(after_sequence);
  const auto reader = stub_->WatchJob(call.context(), request);
  v1::JobEvent event;
  while (reader->Read(&event)) {
    if (sink(event)) continue;
    call.context()->TryCancel();
    reader->Finish();
    return absl::OkStatus();
  }
  return FromGrpcStatus(reader->Finish());
}

absl::Status TrainingClient::ReadArtifact(std::string_view parent, const std::string& path, int64_t offset,
                                          absl::FunctionRef<absl::Status(std::string_view)> sink) const {
  Call call(options_);
  v1::ReadArtifactRequest request;
  request.set_parent(ToJobName(parent));
  request.set_path(path);
  request.set_offset(offset);
  const auto reader = stub_->ReadArtifact(call.context(), request);
  v1::ReadArtifactResponse chunk;
  while (reader->Read(&chunk)) {
    if (auto status = sink(chunk.data()); !status.ok()) {
      call.context()->TryCancel();
      reader->Finish();
      return status;
    }
  }
  return FromGrpcStatus(reader->Finish());
}

absl::StatusOr<v1::Upload> TrainingClient::FindUpload(const v1::UploadHeader& header) const {
  Call call(options_);
  call.context()->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(options_.deadline));
  v1::Upload upload;
  const auto writer = stub_->UploadFile(call.context(), &upload);
  v1::UploadFileRequest request;
  *request.mutable_header() = header;
  writer->Write(request);
  writer->WritesDone();
  if (auto status = FromGrpcStatus(writer->Finish()); !status.ok()) return status;
  return upload;
}

absl::StatusOr<v1::Upload> TrainingClient::UploadFile(
    const v1::UploadHeader& header, absl::FunctionRef<absl::StatusOr<std::string>()> next_piece) const {
  Call call(options_);
  v1::Upload upload;
  const auto writer = stub_->UploadFile(call.context(), &upload);
  v1::UploadFileRequest request;
  *request.mutable_header() = header;
  // A write fails when the server has ended the call, and Finish() says why.
  for (bool open = writer->Write(request); open; open = writer->Write(request)) {
    auto piece = next_piece();
    if (!piece.ok()) {
      call.context()->TryCancel();
      (void)writer->Finish();
      return piece.status();
    }
    if (piece->empty()) break;
    request.set_data(*std::move(piece));
  }
  writer->WritesDone();
  if (auto status = FromGrpcStatus(writer->Finish()); !status.ok()) return status;
  return upload;
}

}  // namespace temper
