// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/server_callback.h>

#include "server/api/rpc_observer.h"
#include "server/auth/role.h"
#include "server/jobs/job_controller.h"
#include "server/jobs/uri_policy.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

// CreateJob, GetJob, ListJobs, CancelJob, PauseJob, ResumeJob, DeleteJob, QueryMetrics, ListCheckpoints: the
// controller's calls, as they are. A call answers before it returns.
class JobsApi {
 public:
  // Both must outlive it.
  JobsApi(JobController& controller, const UriPolicy& uris, RpcObserver observer)
      : controller_(controller), uris_(uris), observer_(std::move(observer)) {}

  // The job is the caller's; an admin may submit it for somebody else.
  grpc::ServerUnaryReactor* Create(grpc::CallbackServerContext* context, const Identity& caller,
                                   const v1::CreateJobRequest& request, v1::Job* response);
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context, const v1::GetJobRequest& request,
                                v1::Job* response);
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const v1::ListJobsRequest& request,
                                 v1::ListJobsResponse* response);
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context, const Identity& caller,
                                   const v1::CancelJobRequest& request, v1::Job* response);
  grpc::ServerUnaryReactor* Pause(grpc::CallbackServerContext* context, const Identity& caller,
                                  const v1::PauseJobRequest& request, v1::Job* response);
  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* context, const Identity& caller,
                                   const v1::ResumeJobRequest& request, v1::Job* response);
  grpc::ServerUnaryReactor* Delete(grpc::CallbackServerContext* context, const Identity& caller,
                                   const v1::DeleteJobRequest& request, google::protobuf::Empty* response);
  grpc::ServerUnaryReactor* QueryMetrics(grpc::CallbackServerContext* context, const v1::QueryMetricsRequest& request,
                                         v1::QueryMetricsResponse* response);
  grpc::ServerUnaryReactor* ListCheckpoints(grpc::CallbackServerContext* context,
                                            const v1::ListCheckpointsRequest& request,
                                            v1::ListCheckpointsResponse* response);

 private:
  JobController& controller_;
  const UriPolicy& uris_;
  RpcObserver observer_;
};

}  // namespace temper
