// SPDX-License-Identifier: Apache-2.0
// temper-server: everything is made and wired here.
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/log.h"
#include "server/api/rpc_server.h"
#include "server/api/watch_hub.h"
#include "server/auth/authenticator.h"
#include "server/auth/token_store.h"
#include "server/jobs/job_controller.h"
#include "server/jobs/job_store.h"
#include "server/jobs/upload_store.h"
#include "server/launch/local_launcher.h"
#include "server/observe/http_server.h"
#include "server/observe/job_metrics.h"
#include "server/observe/server_metrics.h"
#include "server/server_options.h"
#include "server/web/web_api.h"

namespace temper {
namespace {

// For the gangs to stop: a worker's own grace (server/launch/local_launcher.h) and the kill after it.
constexpr std::chrono::seconds kStopLimit{45};

// How often the files that TLS is made of are looked at.
constexpr std::chrono::seconds kTlsInterval{1};

void LogTlsReload(const absl::Status& status) {
  if (status.ok()) return spdlog::info("TLS: new files are taken over");
  spdlog::error("TLS: new files are refused, the old ones are used: {}", std::string(status.message()));
}

int Fail(int exit_code, const std::string& what) {
  spdlog::error("{}", what);
  return exit_code;
}

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// Waits for the first signal and returns it; a second one, later, ends the process as it would by default.
int WaitForStop() {
  const sigset_t signals = StopSignals();
  int signal = 0;
  while (sigwait(&signals, &signal) != 0) {
  }
  spdlog::info("{}: stopping; once more to end at once", ::strsignal(signal));
  std::thread([signals] {
    int again = 0;
    sigwait(&signals, &again);
    ::_exit(128 + again);
  }).detach();
  return signal;
}

// For scripts that start a server on any free port. Replaced at once, so that nobody reads half of it.
absl::Status WriteAddressFile(const std::filesystem::path& path,
                              const std::map<std::string, ListenAddress>& addresses) {
  nlohmann::json json = {{"pid", ::getpid()}};
  for (const auto& [name, address] : addresses) json[name] = address.Text();
  const std::filesystem::path partial = path.string() + ".part";
  std::ofstream(partial) << json.dump() << "\n";
  std::error_code error;
  std::filesystem::rename(partial, path, error);
  if (error) return absl::UnavailableError(absl::StrCat(path.string(), ": can't be written: ", error.message()));
  return absl::OkStatus();
}

// Its own listener and threads: it answers whatever the others have to do.
absl::StatusOr<std::unique_ptr<HttpServer>> ServeHealth(const ListenAddress& address,
                                                        std::function<absl::Status()> health) {
  HttpPages pages;
  pages.health = std::move(health);
  HttpRules rules;
  rules.admit = [](std::string_view, std::string_view, std::string_view, std::string_view) { return Identity(); };
  return HttpServer::Start(address.host, address.port, std::move(pages), std::move(rules), /*certificates=*/nullptr,
                           {.threads = 4, .streams = 0, .files = 0});
}

// Jobs of an earlier process get their series back.
absl::Status AddExistingJobs(const JobController& controller, JobMetrics& metrics) {
  v1::ListJobsRequest request;
  request.set_page_size(1000);
  for (const auto state : {v1::JOB_STATE_QUEUED, v1::JOB_STATE_CHECKING, v1::JOB_STATE_STARTING, v1::JOB_STATE_RUNNING,
                           v1::JOB_STATE_STOPPING, v1::JOB_STATE_PAUSED}) {
    request.add_states(state);
  }
  const auto list = controller.List(request);
  if (!list.ok()) return list.status();
  for (const v1::Job& job : list->jobs()) metrics.AddExisting(job);
  return absl::OkStatus();
}

RpcServerOptions RpcOptions(const ServerOptions& options, const CertificateWatcher* certificates,
                            const std::filesystem::path& gang_socket) {
  RpcServerOptions rpc;
  rpc.address = options.listen;
  rpc.certificates = certificates;
  rpc.gang_socket = gang_socket;
  rpc.uris = options.uris;
  rpc.max_calls_per_second = options.max_calls_per_second;
  rpc.watches.per_caller = options.max_watches;
  rpc.transfers.per_caller = options.max_transfers;
  rpc.node_silence.attached = 2 * options.silence_limit;  // the controller has ended its gang by then
  return rpc;
}

int Serve(const ServerOptions& options) {
  if (absl::Status status = CheckExposure(options); !status.ok()) {
    return Fail(kServerUsage, std::string(status.message()));
  }
  if (::access(options.worker_binary.c_str(), X_OK) != 0) {
    return Fail(kServerWorker, absl::StrCat(options.worker_binary.string(),
                                            " can't be executed; name the temper-worker with --worker-binary"));
  }
  const std::filesystem::path gang_socket = options.data_dir / "gang.sock";
  if (auto address = UnixAddress(gang_socket); !options.tls.certificate.empty() && !address.ok()) {
    return Fail(kServerDataDir, absl::StrCat(address.status().message(), "; choose a shorter --data-dir"));
  }
  auto store = JobStore::Open(options.data_dir);
  if (!store.ok()) return Fail(kServerDataDir, std::string(store.status().message()));

  // A server that was killed left its own.
  const std::filesystem::path address_file = options.data_dir / "address.json";
  std::error_code ignored;
  std::filesystem::remove(address_file, ignored);
  std::filesystem::remove(gang_socket, ignored);

  const RealClock machine_clock;
  const SteadyClock clock(machine_clock);
  auto uploads = UploadStore::Open({.directory = options.data_dir / "uploads",
                                    .max_file_bytes = options.max_upload_bytes,
                                    .max_total_bytes = options.max_uploads_bytes},
                                   clock);
  if (!uploads.ok()) return Fail(kServerDataDir, std::string(uploads.status().message()));
  std::unique_ptr<TokenStore> tokens;
  if (options.require_tokens) {
    auto opened = TokenStore::Open(options.data_dir, machine_clock);
    if (!opened.ok()) return Fail(kServerDataDir, std::string(opened.status().message()));
    tokens = *std::move(opened);
  }
  const Authenticator authenticator(tokens.get());
  prometheus::Registry registry;
  ServerMetrics server_metrics(registry, TEMPER_VERSION, clock.Wall());
  std::unique_ptr<CertificateWatcher> certificates;
  if (!options.tls.certificate.empty()) {
    auto watcher =
        CertificateWatcher::Start(options.tls, options.data_dir / "tls", kTlsInterval, [&](const absl::Status& status) {
          server_metrics.CountTlsReload(status);
          LogTlsReload(status);
        });
    if (!watcher.ok()) return Fail(kServerTls, std::string(watcher.status().message()));
    certificates = *std::move(watcher);
  }
  LocalLauncher launcher({.worker_binary = options.worker_binary,
                          .environment = WorkerEnvironment(options.worker_env),
                          .gpus = options.gpus});
  JobControllerOptions controller_options;
  controller_options.runs_dir = options.data_dir / "runs";
  controller_options.slots = options.slots;
  controller_options.retry = options.retry;
  controller_options.silence_limit = options.silence_limit;
  controller_options.max_preflights = options.max_preflights;
  controller_options.max_unfinished = options.max_unfinished_jobs;
  controller_options.trust_remote_code = options.trust_remote_code;
  controller_options.keep_ended = options.keep_ended;
  controller_options.uploads = uploads->get();
  JobController controller(**store, launcher, clock, controller_options);

  JobMetrics job_metrics(registry, clock);
  WatchHub hub({});
  WebApi web(controller, clock, TEMPER_VERSION, options.require_tokens);
  controller.AddListener([&](const v1::Job& job, const v1::JobEvent& event) {
    job_metrics.OnEvent(job, event);
    hub.OnEvent(job.name(), event.sequence());
    web.OnEvent(job);
  });
  if (auto status = controller.Recover(); !status.ok()) return Fail(kServerOther, std::string(status.message()));
  if (auto status = AddExistingJobs(controller, job_metrics); !status.ok()) {
    return Fail(kServerOther, std::string(status.message()));
  }

  if (auto status = CheckFree(options.http); !status.ok()) {
    return Fail(kServerAddress, absl::StrCat(status.message(), "; choose another with --http HOST:PORT"));
  }
  if (options.health) {
    if (auto status = CheckFree(*options.health); !status.ok()) {
      return Fail(kServerAddress, absl::StrCat(status.message(), "; choose another with --health HOST:PORT"));
    }
  }
  auto rpc = RpcServer::Start(
      RpcOptions(options, certificates.get(), gang_socket), controller, hub, **uploads, authenticator,
      [&](std::string_view method, const absl::Status& status) { server_metrics.CountRpc(method, status); });
  if (!rpc.ok()) {
    return Fail(kServerAddress, absl::StrCat(rpc.status().message(), "; choose another with --listen HOST:PORT"));
  }
  HttpPages pages;
  pages.metrics = [&] {
    job_metrics.Refresh();
    if (const auto counts = (*store)->CountByState(); counts.ok()) server_metrics.SetJobs(*counts);
    server_metrics.SetWatchers(hub.watchers());
    server_metrics.SetClockDrift(clock.Drift());
    std::error_code unknown;
    if (const auto disk = std::filesystem::space(options.data_dir, unknown); !unknown) server_metrics.SetDisk(disk);
    if (certificates != nullptr) server_metrics.SetTlsExpiry(certificates->expiry());
    return prometheus::TextSerializer().Serialize(registry.Collect());
  };
  const auto health = [&] { return (*store)->CountByState().status(); };
  pages.health = health;
  pages.routes = web.Routes();
  pages.stop = [&] { web.Stop(); };
  HttpRules rules;
  rules.admit = [&](std::string_view route, std::string_view job, std::string_view authorization,
                    std::string_view peer) { return (*rpc)->guard().PassPage(route, job, authorization, peer); };
  // With tokens a page of another origin has nothing to show.
  rules.loopback_names_only = tokens == nullptr && options.http.IsLoopback();
  rules.health_has_reason = tokens == nullptr;
  auto http =
      HttpServer::Start(options.http.host, options.http.port, std::move(pages), std::move(rules), certificates.get());
  if (!http.ok()) return Fail(kServerAddress, std::string(http.status().message()));

  const ListenAddress http_address{options.http.host, (*http)->port()};
  std::map<std::string, ListenAddress> addresses = {{"grpc", (*rpc)->address()}, {"http", http_address}};
  std::unique_ptr<HttpServer> probes;
  if (options.health) {
    auto started = ServeHealth(*options.health, health);
    if (!started.ok()) return Fail(kServerAddress, std::string(started.status().message()));
    probes = *std::move(started);
    addresses["health"] = {options.health->host, probes->port()};
  }

  controller.Start((*rpc)->gang_address());
  if (auto status = WriteAddressFile(address_file, addresses); !status.ok()) {
    return Fail(kServerDataDir, std::string(status.message()));
  }
  std::printf("temper-server %s: gRPC on %s, web page and /metrics on %s://%s, data in %s\n", TEMPER_VERSION,
              (*rpc)->address().Text().c_str(), certificates == nullptr ? "http" : "https", http_address.Text().c_str(),
              options.data_dir.c_str());
  std::fflush(stdout);

  const int signal = WaitForStop();
  // Gangs report while they stop, so the services outlive them.
  (*rpc)->AnnounceStop();
  hub.Stop();
  controller.Shutdown();
  // SIGTERM is for a restart: gangs go on, and the next server adopts them. Who presses Ctrl-C wants everything to end.
  if (signal == SIGINT) controller.StopGangs(kStopLimit);
  (*rpc)->Shutdown(std::chrono::seconds(2));
  std::filesystem::remove(address_file, ignored);
  spdlog::info("stopped");
  return kServerOk;
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  temper::ServerOptions options;
  int exit_code = 0;
  if (!temper::ParseServerOptions(argc, argv, TEMPER_VERSION, options, exit_code)) return exit_code;
  if (auto status = temper::SetUpLog("temper-server", options.log_level, options.log_format); !status.ok()) {
    return temper::kServerUsage;
  }
  ::setenv(temper::kLogFormatVariable, options.log_format.c_str(), /*overwrite=*/1);

  ::signal(SIGPIPE, SIG_IGN);
  // Before there are threads, which inherit it; workers are started with nothing blocked.
  const sigset_t signals = temper::StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // gRPC's own remarks repeat what we say better.
  ::setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  return temper::Serve(options);
}
