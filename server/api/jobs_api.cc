// SPDX-License-Identifier: Apache-2.0
#include "server/api/jobs_api.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"
#include "server/api/audit.h"
#include "server/api/unary_answer.h"

namespace temper {
namespace {

absl::Status SetOwner(const Identity& caller, v1::Job& job) {
  const bool says_so = !job.spec().owner().empty() && job.spec().owner() != caller.name;
  if (caller.name.empty() || !job.has_spec() || (says_so && caller.role == Role::kAdmin)) return absl::OkStatus();
  if (says_so) {
    return WithReason(absl::PermissionDeniedError(absl::StrCat("owner is ", job.spec().owner(), ", but the token is ",
                                                               caller.name, "'s: leave the owner out")),
                      "NOT_THE_OWNER");
  }
  job.mutable_spec()->set_owner(caller.name);
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* JobsApi::Create(grpc::CallbackServerContext* context, const Identity& caller,
                                          const v1::CreateJobRequest& request, v1::Job* response) {
  const auto create = [&]() -> absl::StatusOr<v1::Job> {
    v1::CreateJobRequest owned = request;
    if (absl::Status status = SetOwner(caller, *owned.mutable_job()); !status.ok()) return status;
    if (absl::Status status = uris_.Check(owned.job().spec()); !status.ok()) return status;
    return controller_.Create(std::move(owned), caller.name);
  };
  auto job = create();
  Audit(*context, &caller, "CreateJob", job.ok() ? job->name() : request.job_id(), job.status());
  return Answer(context, "CreateJob", observer_, std::move(job), response);
}

grpc::ServerUnaryReactor* JobsApi::Get(grpc::CallbackServerContext* context, const v1::GetJobRequest& request,
                                       v1::Job* response) {
  return Answer(context, "GetJob", observer_, controller_.Get(request.name()), response);
}

grpc::ServerUnaryReactor* JobsApi::List(grpc::CallbackServerContext* context, const v1::ListJobsRequest& request,
                                        v1::ListJobsResponse* response) {
  return Answer(context, "ListJobs", observer_, controller_.List(request), response);
}

grpc::ServerUnaryReactor* JobsApi::Cancel(grpc::CallbackServerContext* context, const Identity& caller,
                                          const v1::CancelJobRequest& request, v1::Job* response) {
  auto job = controller_.Cancel(request.name(), caller.name);
  Audit(*context, &caller, "CancelJob", request.name(), job.status());
  return Answer(context, "CancelJob", observer_, std::move(job), response);
}

grpc::ServerUnaryReactor* JobsApi::Pause(grpc::CallbackServerContext* context, const Identity& caller,
                                         const v1::PauseJobRequest& request, v1::Job* response) {
  auto job = controller_.Pause(request.name(), caller.name);
  Audit(*context, &caller, "PauseJob", request.name(), job.status());
  return Answer(context, "PauseJob", observer_, std::move(job), response);
}

grpc::ServerUnaryReactor* JobsApi::Resume(grpc::CallbackServerContext* context, const Identity& caller,
                                          const v1::ResumeJobRequest& request, v1::Job* response) {
  auto job = controller_.Resume(request.name(), caller.name);
  Audit(*context, &caller, "ResumeJob", request.name(), job.status());
  return Answer(context, "ResumeJob", observer_, std::move(job), response);
}

grpc::ServerUnaryReactor* JobsApi::Delete(grpc::CallbackServerContext* context, const Identity& caller,
                                          const v1::DeleteJobRequest& request, google::protobuf::Empty* response) {
  absl::StatusOr<google::protobuf::Empty> result = google::protobuf::Empty();
  if (absl::Status status = controller_.Delete(request.name()); !status.ok()) result = status;
  Audit(*context, &caller, "DeleteJob", request.name(), result.status());
  return Answer(context, "DeleteJob", observer_, std::move(result), response);
}

grpc::ServerUnaryReactor* JobsApi::QueryMetrics(grpc::CallbackServerContext* context,
                                                const v1::QueryMetricsRequest& request,
                                                v1::QueryMetricsResponse* response) {
  return Answer(context, "QueryMetrics", observer_, controller_.Metrics(request), response);
}

grpc::ServerUnaryReactor* JobsApi::ListCheckpoints(grpc::CallbackServerContext* context,
                                                   const v1::ListCheckpointsRequest& request,
                                                   v1::ListCheckpointsResponse* response) {
  const auto checkpoints = controller_.Checkpoints(request.parent());
  absl::StatusOr<v1::ListCheckpointsResponse> result = v1::ListCheckpointsResponse();
  if (checkpoints.ok()) {
    for (const v1::Checkpoint& checkpoint : *checkpoints) *result->add_checkpoints() = checkpoint;
  } else {
    result = checkpoints.status();
  }
  return Answer(context, "ListCheckpoints", observer_, std::move(result), response);
}

}  // namespace temper
