// SPDX-License-Identifier: Apache-2.0
#include "server/api/rpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/keepalive.h"

namespace temper {
namespace {

// What a caller may send at once. Uploads come in pieces of 1 MiB, and a report holds no more than that.
constexpr int kMaxMessageBytes = 4 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;

// Calls of one connection at a time: what takes no token, as gRPC's own services, is counted nowhere else.
constexpr int kMaxConcurrentCalls = 1000;

// Seconds until gRPC sees that the watcher has replaced its copies.
constexpr unsigned kRefreshInterval = 1;

std::shared_ptr<grpc::ServerCredentials> CredentialsOf(const CertificateWatcher* certificates) {
  if (certificates == nullptr) return grpc::InsecureServerCredentials();
  const TlsFiles files = certificates->copies();
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(files.key, files.certificate,
                                                                           files.client_ca, kRefreshInterval));
  options.watch_identity_key_cert_pairs();
  if (!files.client_ca.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace

RpcServer::RpcServer(const RpcServerOptions& options, JobController& controller, WatchHub& hub, UploadStore& uploads,
                     const Authenticator& authenticator, RpcObserver observer)
    : uris_(options.uris),
      limiter_(options.max_calls_per_second, clock_),
      streams_{.watches = StreamLimiter(options.watches),
               .transfers = StreamLimiter(options.transfers),
               .greetings = StreamLimiter(options.greetings)},
      transfer_watch_(options.transfer_idle_limit),
      guard_(authenticator, limiter_, controller, observer),
      training_(controller, hub, uploads, uris_, guard_, streams_, transfer_watch_, observer),
      tokens_(authenticator.tokens(), guard_, observer),
      worker_(controller, guard_, streams_.greetings, options.node_silence, std::move(observer)) {}

RpcServer::~RpcServer() { Shutdown(std::chrono::milliseconds(0)); }

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options, JobController& controller,
                                                            WatchHub& hub, UploadStore& uploads,
                                                            const Authenticator& authenticator, RpcObserver observer) {
  // gRPC says only that it failed.
  if (auto status = CheckFree(options.address); !status.ok()) return status;
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  auto server =
      std::unique_ptr<RpcServer>(new RpcServer(options, controller, hub, uploads, authenticator, std::move(observer)));
  server->address_ = options.address;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(options.address.Text(), CredentialsOf(options.certificates), &server->address_.port);
  if (options.certificates != nullptr) {
    const auto address = UnixAddress(options.gang_socket);
    if (!address.ok()) return address.status();
    server->gang_address_ = *address;
    builder.AddListeningPort(*address, grpc::InsecureServerCredentials());
  }
  // With SO_REUSEPORT a second server would start on the same port and take half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxConcurrentCalls);
  SetServerKeepalive({}, builder);
  builder.RegisterService(&server->training_);
  builder.RegisterService(&server->tokens_);
  builder.RegisterService(&server->worker_);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr) {
    return absl::UnavailableError(absl::StrCat(options.address.Text(), ": gRPC could not listen there"));
  }
  if (options.certificates == nullptr) {
    server->gang_address_ = server->address_.Reachable().Text();
  } else if (::chmod(options.gang_socket.c_str(), 0600) != 0) {
    return absl::UnavailableError(absl::StrCat(options.gang_socket.string(), ": ", std::strerror(errno)));
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
  worker_.EndStreams();
  server_->Shutdown(std::chrono::system_clock::now() + grace);
  server_->Wait();
  server_.reset();
}

}  // namespace temper
