// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "server/api/guard.h"
#include "server/api/listen_address.h"
#include "server/api/rpc_observer.h"
#include "server/api/tokens_api.h"
#include "server/api/training_api.h"
#include "server/api/transfer_watch.h"
#include "server/api/watch_hub.h"
#include "server/api/worker_api.h"
#include "server/auth/certificate_watcher.h"
#include "server/auth/stream_limiter.h"
#include "server/jobs/job_controller.h"
#include "server/jobs/uri_policy.h"

namespace temper {

struct RpcServerOptions {
  ListenAddress address;
  // What it shows its callers, and asks of them; null: plain text. Must outlive the server.
  const CertificateWatcher* certificates = nullptr;
  // With certificates: where this host's gangs come, in plain text: they need no certificate. A socket that is there is
  // replaced. UnixAddress() must be possible.
  std::filesystem::path gang_socket;
  // What jobs may name.
  UriPolicy uris;
  // Of each identity with a token; 0: no limit.
  double max_calls_per_second = 0;
  StreamLimit watches{.what = "streams that follow jobs", .per_caller = 250, .of_all = 1000, .option = "--max-watches"};
  // Each holds up to 9 MiB.
  StreamLimit transfers{.what = "uploads and downloads", .per_caller = 16, .of_all = 64, .option = "--max-transfers"};
  // How long a transfer's client may take to send or take a message (1 MiB).
  std::chrono::milliseconds transfer_idle_limit{60'000};
  // Of nodes that have not said yet who they are. A server's own gangs come from one host, all at once after a restart.
  StreamLimit greetings{.what = "streams of nodes without a Hello", .per_caller = 1000, .of_all = 4000};
  NodeSilence node_silence;
};

// The gRPC server: TrainingService, TokenService, WorkerService, grpc.health.v1 and reflection, on one port. Over TLS,
// also on a Unix socket in plain text, for the gangs of this host: the file system lets in this user alone, the address
// is the same after a restart, and the same tokens are asked for.
class RpcServer {
 public:
  // Serves as soon as it returns. Everything that it is given must outlive it.
  //
  // ALREADY_EXISTS: somebody listens there. UNAVAILABLE, INVALID_ARGUMENT: the address is not one of this host.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options, JobController& controller,
                                                          WatchHub& hub, UploadStore& uploads,
                                                          const Authenticator& authenticator, RpcObserver observer);
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  // With the real port.
  const ListenAddress& address() const { return address_; }
  // Where gangs on this host reach it, as gRPC's clients take it.
  const std::string& gang_address() const { return gang_address_; }

  // For pages of HTTP that take the same tokens.
  const Guard& guard() const { return guard_; }

  // Tells health checks that the server goes away. It still answers: gangs that stop have to report.
  void AnnounceStop();
  // Takes no more calls, and ends those that are not done within `grace`.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  RpcServer(const RpcServerOptions& options, JobController& controller, WatchHub& hub, UploadStore& uploads,
            const Authenticator& authenticator, RpcObserver observer);

  const RealClock clock_;
  const UriPolicy uris_;
  CallLimiter limiter_;
  StreamLimiters streams_;
  TransferWatch transfer_watch_;
  const Guard guard_;
  TrainingApi training_;
  TokensApi tokens_;
  WorkerApi worker_;
  ListenAddress address_;
  std::string gang_address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace temper
