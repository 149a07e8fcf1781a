// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "temper/v1/training_service.grpc.pb.h"

namespace temper {

// "jobs/ID" of an id or a name. Whether there is such a job is for the server to say.
std::string ToJobName(std::string_view id_or_name);
// "ID" of a name.
std::string ToJobId(std::string_view name);

// "jobs/ID/checkpoints/STEP".
std::string CheckpointName(std::string_view job, int64_t step);

struct ClientOptions {
  std::string token;                            // sent as "authorization: Bearer TOKEN" when not empty
  absl::Duration deadline = absl::Seconds(10);  // of one unary call, retries included
  std::stop_token stop;                         // ends every call with CANCELLED
};

// temper.v1.TrainingService with types: one method per call. Errors are the server's own (their details are read by
// common/rpc/status.h), or
//   UNAVAILABLE        nothing answers at the address
//   DEADLINE_EXCEEDED  something does, too late
//   CANCELLED          options.stop
// Any thread.
class TrainingClient {
 public:
  explicit TrainingClient(std::shared_ptr<grpc::Channel> channel, ClientOptions options = {});

  // A request without request_id gets one, so that it can be repeated safely.
  absl::StatusOr<v1::Job> CreateJob(v1::CreateJobRequest request) const;
  absl::StatusOr<v1::Job> GetJob(std::string_view job) const;
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request) const;
  absl::StatusOr<v1::Job> CancelJob(std::string_view job) const;
  absl::StatusOr<v1::Job> PauseJob(std::string_view job) const;
  absl::StatusOr<v1::Job> ResumeJob(std::string_view job) const;
  absl::Status DeleteJob(std::string_view job) const;
  absl::StatusOr<v1::QueryMetricsResponse> QueryMetrics(const v1::QueryMetricsRequest& request) const;
  absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(std::string_view job) const;
  absl::StatusOr<v1::ListFamiliesResponse> ListFamilies() const;

  // `parent`: a job, for its export, or CheckpointName(), for a checkpoint.
  absl::StatusOr<v1::ListArtifactsResponse> ListArtifacts(std::string_view parent) const;

  // Calls `sink` with the events after `after_sequence`, in order, on this thread, until the server ends the stream
  // (OK: the job has ended) or `sink` returns false (OK). For reconnecting see client/follow_job.h.
  absl::Status WatchJob(std::string_view job, int64_t after_sequence,
                        absl::FunctionRef<bool(const v1::JobEvent&)> sink) const;

  // Calls `sink` with the bytes of one artifact from `offset` on, until the end or an error of `sink`.
  absl::Status ReadArtifact(std::string_view parent, const std::string& path, int64_t offset,
                            absl::FunctionRef<absl::Status(std::string_view)> sink) const;

  // The file that the server has already; NOT_FOUND when it has not.
  absl::StatusOr<v1::Upload> FindUpload(const v1::UploadHeader& header) const;
  // Sends a file: what `next_piece` returns, until that is empty. For files and jobs see client/uploader.h.
  absl::StatusOr<v1::Upload> UploadFile(const v1::UploadHeader& header,
                                        absl::FunctionRef<absl::StatusOr<std::string>()> next_piece) const;

  // The same, but that options().stop ends no call: for what is to be said after it.
  TrainingClient WithoutStop() const;

  const ClientOptions& options() const { return options_; }

 private:
  class Call;
  template <typename Request, typename Response>
  absl::StatusOr<Response> Unary(grpc::Status (v1::TrainingService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                                                   Response*),
                                 const Request& request) const;

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::TrainingService::Stub> stub_;
  ClientOptions options_;
};

// A random UUID (RFC 9562, version 4).
std::string NewRequestId();

}  // namespace temper
