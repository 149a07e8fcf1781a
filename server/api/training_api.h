// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/api/artifacts_api.h"
#include "server/api/families_api.h"
#include "server/api/guard.h"
#include "server/api/jobs_api.h"
#include "server/api/uploads_api.h"
#include "server/api/watch_api.h"
#include "server/auth/stream_limiter.h"
#include "temper/v1/training_service.grpc.pb.h"

namespace temper {

// TrainingService: hands each call that may be made to the file that answers it.
class TrainingApi final : public v1::TrainingService::CallbackService {
 public:
  // All must outlive it.
  TrainingApi(JobController& controller, WatchHub& hub, UploadStore& uploads, const UriPolicy& uris, const Guard& guard,
              StreamLimiters& streams, TransferWatch& transfers, const RpcObserver& observer)
      : guard_(guard),
        streams_(streams),
        jobs_(controller, uris, observer),
        watch_(controller, hub, observer),
        artifacts_(controller, transfers, observer),
        families_(observer),
        uploads_(uploads, transfers, observer) {}

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext* context, const v1::CreateJobRequest* request,
                                      v1::Job* response) override {
    return guard_.Pass(context, "/temper.v1.TrainingService/CreateJob", "",
                       [&](const Identity& caller) { return jobs_.Create(context, caller, *request, response); });
  }
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                   v1::Job* response) override {
    return guard_.Pass(context, "/temper.v1.TrainingService/GetJob", request->name(),
                       [&](const Identity&) { return jobs_.Get(context, *request, response); });
  }
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context, const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override {
    return guard_.Pass(context, "/temper.v1.TrainingService/ListJobs", "",
                       [&](const Identity&) { return jobs_.List(context, *request, response); });
  }
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context, const v1::CancelJobRequest* request,
                                      v1::Job* response) override {
    return guard_.Pass(context, "/temper.v1.TrainingService/CancelJob", request->name(),
                       [&](const Identity& caller) { return jobs_.Cancel(context, caller, *request, response); });
  }
  grpc::ServerUnaryReactor* PauseJob(grpc::CallbackServerContext* context, const v1::PauseJobRequest* request,
                                     v1::Job* response) override {
    return guard_.Pass(context, "/temper.v1.TrainingService/PauseJob", request->name(),
                       [&](const Identity& caller) { return jobs_.Pause(context, caller, *request, response); });
  }
  grpc::ServerUnaryReactor* ResumeJob(grpc::CallbackServerContext* context, const v1::ResumeJobRequest* request,
                                      v1::Job* response) override {
    return guard_.Pass(context, "/temper.v1.TrainingService/ResumeJob", request->name(),
                       [&](const Identity& caller) { return jobs_.Resume(context, caller, *request, response); });
  }
  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext* context, const v1::DeleteJobRequest* request,
                                      google::protobuf::Empty* response) override {
    return guard_.Pass(context, "/temper.v1.TrainingService/DeleteJob", request->name(),
                       [&](const Identity& caller) { return jobs_.Delete(context, caller, *request, response); });
  }
  grpc::ServerUnaryReactor* QueryMetrics(grpc::CallbackServerContext* context, const v1::QueryMetricsRequest* request,
                                         v1::QueryMetricsResponse* response) override {
    return guard_.Pass(context, "/temper.v1.TrainingService/QueryMetrics", request->parent(),
                       [&](const Identity&) { return jobs_.QueryMetrics(context, *request, response); });
  }
  grpc::ServerUnaryReactor* ListCheckpoints(grpc::CallbackServerContext* context,
                                            const v1::ListCheckpointsRequest* request,
                                            v1::ListCheckpointsResponse* response) override {
    return guard_.Pass(context, "/temper.v1.TrainingService/ListCheckpoints", request->parent(),
                       [&](const Identity&) { return jobs_.ListCheckpoints(context, *request, response); });
  }
  grpc::ServerWriteReactor<v1::JobEvent>* WatchJob(grpc::CallbackServerContext* context,
                                                   const v1::WatchJobRequest* request) override {
    return guard_.PassStream(
        context, "/temper.v1.TrainingService/WatchJob", request->name(), streams_.watches,
        [&](std::unique_ptr<StreamPlace> place) { return watch_.Watch(context, *request, std::move(place)); });
  }
  grpc::ServerUnaryReactor* ListArtifacts(grpc::CallbackServerContext* context, const v1::ListArtifactsRequest* request,
                                          v1::ListArtifactsResponse* response) override {
    return guard_.Pass(context, "/temper.v1.TrainingService/ListArtifacts", request->parent(),
                       [&](const Identity&) { return artifacts_.List(context, *request, response); });
  }
  grpc::ServerWriteReactor<v1::ReadArtifactResponse>* ReadArtifact(grpc::CallbackServerContext* context,
                                                                   const v1::ReadArtifactRequest* request) override {
    return guard_.PassStream(
        context, "/temper.v1.TrainingService/ReadArtifact", request->parent(), streams_.transfers,
        [&](std::unique_ptr<StreamPlace> place) { return artifacts_.Read(context, *request, std::move(place)); });
  }
  grpc::ServerUnaryReactor* ListFamilies(grpc::CallbackServerContext* context, const v1::ListFamiliesRequest* request,
                                         v1::ListFamiliesResponse* response) override {
    return guard_.Pass(context, "/temper.v1.TrainingService/ListFamilies", "",
                       [&](const Identity&) { return families_.List(context, *request, response); });
  }
  grpc::ServerReadReactor<v1::UploadFileRequest>* UploadFile(grpc::CallbackServerContext* context,
                                                             v1::Upload* response) override {
    return guard_.PassStream(
        context, "/temper.v1.TrainingService/UploadFile", "", streams_.transfers,
        [&](std::unique_ptr<StreamPlace> place) { return uploads_.Upload(context, response, std::move(place)); });
  }

 private:
  const Guard& guard_;
  StreamLimiters& streams_;
  JobsApi jobs_;
  WatchApi watch_;
  ArtifactsApi artifacts_;
  FamiliesApi families_;
  UploadsApi uploads_;
};

}  // namespace temper
