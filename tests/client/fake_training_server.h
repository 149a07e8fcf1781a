// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/channel.h"
#include "client/training_client.h"
#include "common/rpc/status.h"
#include "temper/v1/training_service.grpc.pb.h"

namespace temper {

// A TrainingService on loopback whose streams do what a test says: serve files, break at a byte, end after an event.
class FakeTrainingServer : public v1::TrainingService::Service {
 public:
  FakeTrainingServer() { Start(0); }

  TrainingClient Client(ClientOptions options = {}) const {
    return TrainingClient(MakeChannel(address()), std::move(options));
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  void Stop() { server_->Shutdown(std::chrono::system_clock::now()); }
  // On the same port again.
  void Restart() { Start(port_); }

  // What the next calls do; they may be set while nothing runs.
  std::function<grpc::Status(const v1::WatchJobRequest&, grpc::ServerWriter<v1::JobEvent>&, grpc::ServerContext&)>
      watch;
  std::function<grpc::Status(const v1::CreateJobRequest&, grpc::ServerContext&, v1::Job&)> create;
  // Artifacts by path, and how each read may go on: the bytes to send before the stream breaks (absent: all).
  std::map<std::string, std::string> files;
  std::vector<v1::Artifact> artifacts;
  std::vector<size_t> break_after;  // used up from the front, one per read
  grpc::Status break_with{grpc::StatusCode::UNAVAILABLE, "cable cut"};
  std::vector<int64_t> offsets;  // of the reads so far

  // Uploads: by "SHA-256/name", and what all of them end with instead, where it is an error.
  std::map<std::string, std::string> uploads;
  std::vector<std::string> uploaded;  // the names of those that came with bytes
  grpc::Status upload_error;

  // Transfers for which there is no place yet.
  int refusals = 0;

  grpc::Status UploadFile(grpc::ServerContext*, grpc::ServerReader<v1::UploadFileRequest>* reader,
                          v1::Upload* upload) override {
    if (refusals > 0) return Refuse();
    if (!upload_error.ok()) return upload_error;
    v1::UploadFileRequest request;
    std::string key, bytes;
    while (reader->Read(&request)) {
      if (request.has_header()) key = absl::StrCat(request.header().sha256(), "/", request.header().file_name());
      bytes += request.data();
    }
    if (bytes.empty() && !uploads.contains(key)) return grpc::Status(grpc::StatusCode::NOT_FOUND, "not there");
    if (!bytes.empty()) {
      uploads[key] = bytes;
      uploaded.push_back(key.substr(key.find('/') + 1));
    }
    upload->set_uri("/uploads/" + key);
    return grpc::Status::OK;
  }
  grpc::Status CreateJob(grpc::ServerContext* context, const v1::CreateJobRequest* request, v1::Job* job) override {
    return create(*request, *context, *job);
  }
  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::JobEvent>* writer) override {
    return watch(*request, *writer, *context);
  }
  grpc::Status ListArtifacts(grpc::ServerContext*, const v1::ListArtifactsRequest*,
                             v1::ListArtifactsResponse* response) override {
    for (const auto& artifact : artifacts) *response->add_artifacts() = artifact;
    return grpc::Status::OK;
  }
  grpc::Status ReadArtifact(grpc::ServerContext*, const v1::ReadArtifactRequest* request,
                            grpc::ServerWriter<v1::ReadArtifactResponse>* writer) override {
    if (refusals > 0) return Refuse();
    offsets.push_back(request->offset());
    size_t left = std::string::npos;
    if (!break_after.empty()) {
      left = break_after.front();
      break_after.erase(break_after.begin());
    }
    std::string rest = files.at(request->path()).substr(static_cast<size_t>(request->offset()));
    const bool breaks = left < rest.size();
    rest.resize(std::min(rest.size(), left));
    constexpr size_t kChunk = 1000;
    for (size_t at = 0; at < rest.size(); at += kChunk) {
      v1::ReadArtifactResponse chunk;
      chunk.set_data(rest.substr(at, kChunk));
      writer->Write(chunk);
    }
    return breaks ? break_with : grpc::Status::OK;
  }

 private:
  grpc::Status Refuse() {
    --refusals;
    return ToGrpcStatus(WithReason(absl::ResourceExhaustedError("too many"), "TOO_MANY_STREAMS"));
  }

  void Start(int port) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace temper
