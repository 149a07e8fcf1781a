// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/api/listen_address.h"
#include "server/auth/certificate_watcher.h"
#include "server/jobs/job_machine.h"
#include "server/jobs/scheduler.h"
#include "server/jobs/uri_policy.h"

namespace temper {

// What temper-server tells the shell. Never renumbered.
enum ServerExitCode {
  kServerOk = 0,
  kServerUsage = 2,    // the command line is wrong, or leaves the server unprotected
  kServerDataDir = 3,  // the data directory is in use, can't be used, or is of a newer temper
  kServerAddress = 4,  // an address is taken, or is none of this host
  kServerWorker = 5,   // there is no worker binary
  kServerTls = 6,      // certificate or key can't be used
  kServerOther = 7,
};

struct ServerOptions {
  std::filesystem::path data_dir;
  ListenAddress listen;
  ListenAddress http;
  std::optional<ListenAddress> health;  // /healthz alone, in plain text
  TlsFiles tls;                         // without a certificate: plain text
  bool require_tokens = false;          // and with one
  bool insecure = false;                // addresses that others reach are allowed to be without TLS and tokens
  UriPolicy uris;
  double max_calls_per_second = 100;  // of each identity; 0: no limit
  int max_watches = 250;              // of each identity or host, at a time
  int max_transfers = 16;             // the same: uploads and downloads
  DeviceSlots slots;
  std::vector<std::string> gpus;  // as many as there are slots "cuda", as CUDA_VISIBLE_DEVICES names them
  std::filesystem::path worker_binary;
  std::vector<std::string> worker_env;  // variables that workers get besides the usual ones (WorkerEnvironment)
  RetryPolicy retry;
  std::chrono::seconds silence_limit{120};
  int max_preflights = 2;
  size_t max_unfinished_jobs = 10'000;
  bool trust_remote_code = false;
  std::chrono::hours keep_ended{0};
  int64_t max_upload_bytes = 0;   // of one file
  int64_t max_uploads_bytes = 0;  // of all together
  std::string log_level;
  std::string log_format;
};

// INVALID_ARGUMENT, with what to do: an address of the server's can be reached from other hosts, without protection.
absl::Status CheckExposure(const ServerOptions& options);

// Reads the command line. False: the process is to end with `exit_code` (help, version or what `token` is about were
// shown, or what is wrong was said on standard error).
bool ParseServerOptions(int argc, char** argv, const std::string& version, ServerOptions& options, int& exit_code);

}  // namespace temper
