// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/api/artifacts_api.h"
#include "server/api/families_api.h"
#include "server/api/jobs_api.h"
#include "server/api/uploads_api.h"
#include "server/api/watch_api.h"
#include "temper/v1/training_service.grpc.pb.h"

namespace temper {

// TrainingService: hands each call to the file that answers it.
class TrainingApi final : public v1::TrainingService::CallbackService {
 public:
  TrainingApi(JobController& controller, WatchHub& hub, UploadStore& uploads, const RpcObserver& observer)
      : jobs_(controller, observer),
        watch_(controller, hub, observer),
        artifacts_(controller, observer),
        families_(observer),
        uploads_(uploads, observer) {}

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext* context, const v1::CreateJobRequest* request,
                                      v1::Job* response) override {
    return jobs_.Create(context, *request, response);
  }
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                   v1::Job* response) override {
    return jobs_.Get(context, *request, response);
  }
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context, const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override {
    return jobs_.List(context, *request, response);
  }
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context, const v1::CancelJobRequest* request,
                                      v1::Job* response) override {
    return jobs_.Cancel(context, *request, response);
  }
  grpc::ServerUnaryReactor* PauseJob(grpc::CallbackServerContext* context, const v1::PauseJobRequest* request,
                                     v1::Job* response) override {
    return jobs_.Pause(context, *request, response);
  }
  grpc::ServerUnaryReactor* ResumeJob(grpc::CallbackServerContext* context, const v1::ResumeJobRequest* request,
                                      v1::Job* response) override {
    return jobs_.Resume(context, *request, response);
  }
  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext* context, const v1::DeleteJobRequest* request,
                                      google::protobuf::Empty* response) override {
    return jobs_.Delete(context, *request, response);
  }
  grpc::ServerUnaryReactor* QueryMetrics(grpc::CallbackServerContext* context, const v1::QueryMetricsRequest* request,
                                         v1::QueryMetricsResponse* response) override {
    return jobs_.QueryMetrics(context, *request, response);
  }
  grpc::ServerUnaryReactor* ListCheckpoints(grpc::CallbackServerContext* context,
                                            const v1::ListCheckpointsRequest* request,
                                            v1::ListCheckpointsResponse* response) override {
    return jobs_.ListCheckpoints(context, *request, response);
  }
  grpc::ServerWriteReactor<v1::JobEvent>* WatchJob(grpc::CallbackServerContext* context,
                                                   const v1::WatchJobRequest* request) override {
    return watch_.Watch(context, *request);
  }
  grpc::ServerUnaryReactor* ListArtifacts(grpc::CallbackServerContext* context, const v1::ListArtifactsRequest* request,
                                          v1::ListArtifactsResponse* response) override {
    return artifacts_.List(context, *request, response);
  }
  grpc::ServerWriteReactor<v1::ReadArtifactResponse>* ReadArtifact(grpc::CallbackServerContext* context,
                                                                   const v1::ReadArtifactRequest* request) override {
    return artifacts_.Read(context, *request);
  }
  grpc::ServerUnaryReactor* ListFamilies(grpc::CallbackServerContext* context, const v1::ListFamiliesRequest* request,
                                         v1::ListFamiliesResponse* response) override {
    return families_.List(context, *request, response);
  }
  grpc::ServerReadReactor<v1::UploadFileRequest>* UploadFile(grpc::CallbackServerContext* context,
                                                             v1::Upload* response) override {
    return uploads_.Upload(context, response);
  }

 private:
  JobsApi jobs_;
  WatchApi watch_;
  ArtifactsApi artifacts_;
  FamiliesApi families_;
  UploadsApi uploads_;
};

}  // namespace temper
