// SPDX-License-Identifier: Apache-2.0
#include "server/api/rpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/keepalive.h"

namespace temper {

RpcServer::RpcServer(JobController& controller, WatchHub& hub, UploadStore& uploads, const Authenticator& authenticator,
                     RpcObserver observer)
    : guard_(authenticator, controller, observer),
      training_(controller, hub, uploads, guard_, observer),
      tokens_(authenticator.tokens(), guard_, observer),
      worker_(controller, guard_, std::move(observer)) {}

RpcServer::~RpcServer() { Shutdown(std::chrono::milliseconds(0)); }

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const ListenAddress& address, JobController& controller,
                                                            WatchHub& hub, UploadStore& uploads,
                                                            const Authenticator& authenticator, RpcObserver observer) {
  // gRPC says only that it failed.
  if (auto status = CheckFree(address); !status.ok()) return status;
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  auto server = std::unique_ptr<RpcServer>(new RpcServer(controller, hub, uploads, authenticator, std::move(observer)));
  server->address_ = address;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address.Text(), grpc::InsecureServerCredentials(), &server->address_.port);
  // With SO_REUSEPORT a second server would start on the same port and take half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  SetServerKeepalive({}, builder);
  builder.RegisterService(&server->training_);
  builder.RegisterService(&server->tokens_);
  builder.RegisterService(&server->worker_);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr) {
    return absl::UnavailableError(absl::StrCat(address.Text(), ": gRPC could not listen there"));
  }
  if (auto* health = server->server_->GetHealthCheckService()) {
    health->SetServingStatus("temper.v1.TrainingService", true);
    health->SetServingStatus("temper.v1.TokenService", true);
    health->SetServingStatus("temper.v1.WorkerService", true);
  }
  return server;
}

void RpcServer::AnnounceStop() {
  if (auto* health = server_->GetHealthCheckService()) health->SetServingStatus(false);
}

void RpcServer::Shutdown(std::chrono::milliseconds grace) {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now() + grace);
  server_->Wait();
  server_.reset();
}

}  // namespace temper
