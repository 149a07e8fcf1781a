// SPDX-License-Identifier: Apache-2.0
#include "server/api/jobs_api.h"

#include "server/api/unary_answer.h"

namespace temper {

grpc::ServerUnaryReactor* JobsApi::Create(grpc::CallbackServerContext* context, const v1::CreateJobRequest& request,
                                          v1::Job* response) {
  return Answer(context, "CreateJob", observer_, controller_.Create(request), response);
}

grpc::ServerUnaryReactor* JobsApi::Get(grpc::CallbackServerContext* context, const v1::GetJobRequest& request,
                                       v1::Job* response) {
  return Answer(context, "GetJob", observer_, controller_.Get(request.name()), response);
}

grpc::ServerUnaryReactor* JobsApi::List(grpc::CallbackServerContext* context, const v1::ListJobsRequest& request,
                                        v1::ListJobsResponse* response) {
  return Answer(context, "ListJobs", observer_, controller_.List(request), response);
}

grpc::ServerUnaryReactor* JobsApi::Cancel(grpc::CallbackServerContext* context, const v1::CancelJobRequest& request,
                                          v1::Job* response) {
  return Answer(context, "CancelJob", observer_, controller_.Cancel(request.name()), response);
}

}  // namespace temper
