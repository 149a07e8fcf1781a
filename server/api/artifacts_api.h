// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/storage/object_store.h"
#include "server/api/rpc_observer.h"
#include "server/api/transfer_watch.h"
#include "server/auth/stream_limiter.h"
#include "server/jobs/job_controller.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

// The files of a job's committed export (none until there is one), or of one of its checkpoints.
absl::StatusOr<v1::ListArtifactsResponse> ListArtifacts(const JobController& controller, const std::string& parent);

// One of them.
struct OpenedArtifact {
  std::unique_ptr<ObjectReader> reader;
  std::string sha256;  // in hex, as the manifest has it
};
absl::StatusOr<OpenedArtifact> OpenArtifact(const JobController& controller, const v1::ReadArtifactRequest& request);

// ListArtifacts and ReadArtifact: what the manifest of a job's committed export lists, and nothing else. A path that is
// not in the manifest does not exist, wherever it would lead.
class ArtifactsApi {
 public:
  // Both must outlive every stream.
  ArtifactsApi(const JobController& controller, TransferWatch& watch, RpcObserver observer)
      : controller_(controller), watch_(watch), observer_(std::move(observer)) {}

  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const v1::ListArtifactsRequest& request,
                                 v1::ListArtifactsResponse* response);
  // The stream keeps `place` until it is done.
  grpc::ServerWriteReactor<v1::ReadArtifactResponse>* Read(grpc::CallbackServerContext* context,
                                                           const v1::ReadArtifactRequest& request,
                                                           std::unique_ptr<StreamPlace> place);

 private:
  const JobController& controller_;
  TransferWatch& watch_;
  RpcObserver observer_;
};

}  // namespace temper
