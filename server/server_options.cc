// SPDX-License-Identifier: Apache-2.0
#include "server/server_options.h"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "server/launch/gpu_names.h"
#include "server/launch/worker_environment.h"
#include "server/token_command.h"

namespace temper {
namespace {

constexpr char kFooter[] =
    "Everything that must not be forgotten is in the data directory, which one server at a time can use. The real\n"
    "addresses are printed and written to DATA_DIR/address.json.\n\n"
    "SIGTERM, and even SIGKILL, end the server alone: jobs train on, and the next server adopts them with all that "
    "they\n"
    "have to tell (they wait for it for an hour). SIGINT (Ctrl-C) ends the jobs, too: each commits a checkpoint and "
    "is\n"
    "queued again.\n\n"
    "On loopback, whoever is on this machine can train, unless --require-tokens asks for tokens (`temper-server token "
    "create`).\n\n"
    "Exit codes:\n"
    "  0  stopped on request\n"
    "  2  the command line is wrong, or leaves the server unprotected\n"
    "  3  the data directory is in use or can't be used\n"
    "  4  an address is taken, or is none of this host\n"
    "  5  there is no worker binary\n"
    "  6  certificate or key can't be used\n"
    "  7  anything else\n\n"
    "Examples:\n"
    "  temper-server\n"
    "  temper-server --data-dir ./data --slots cpu:2\n"
    "  temper-server --slots cpu:1,cuda:8\n"
    "  temper-server --listen 0.0.0.0:8470 --http 0.0.0.0:8480 --tls-cert tls.crt --tls-key tls.key\n"
    "  temper-server --listen 127.0.0.1:0 --http 127.0.0.1:0 --data-dir /tmp/temper-test";

std::filesystem::path DefaultDataDir() {
  if (const char* xdg = std::getenv("XDG_DATA_HOME"); xdg != nullptr && *xdg != '\0') {
    return std::filesystem::path(xdg) / "temper";
  }
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home != nullptr && *home != '\0' ? home : ".") / ".local/share/temper";
}

std::filesystem::path DefaultWorkerBinary() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return self.parent_path() / "temper-worker";
}

template <typename T>
T Take(const char* option, absl::StatusOr<T> parsed) {
  if (parsed.ok()) return *std::move(parsed);
  throw CLI::ValidationError(option, std::string(parsed.status().message()));
}

}  // namespace

absl::Status CheckExposure(const ServerOptions& options) {
  if (options.insecure || !options.tls.certificate.empty()) return absl::OkStatus();
  for (const auto& [option, address] : {std::pair("--listen", options.listen), std::pair("--http", options.http)}) {
    if (address.IsLoopback()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        option, " ", address.Text(),
        " can be reached from other hosts, or stands for no address now, and is not protected. Give it TLS "
        "and tokens with --tls-cert FILE --tls-key FILE, keep it on 127.0.0.1 (ssh -L brings it "
        "elsewhere), or accept that with --insecure"));
  }
  return absl::OkStatus();
}

bool ParseServerOptions(int argc, char** argv, const std::string& version, ServerOptions& options, int& exit_code) {
  std::string data_dir = DefaultDataDir().string();
  std::string worker_binary = DefaultWorkerBinary().string();
  std::string listen = "127.0.0.1:8470";
  std::string http = "127.0.0.1:8480";
  std::string health;
  std::vector<std::string> allow_uri;
  std::string tls_cert, tls_key, tls_client_ca;
  std::string slots = "cpu:1";
  std::string log_level = "info";
  std::string log_format = "text";
  int64_t retry_backoff = options.retry.first_backoff.count();
  int64_t silence_limit = options.silence_limit.count();
  int keep_ended_days = 0;
  int64_t max_upload_mb = 256;
  int64_t max_uploads_mb = 10'240;

  CLI::App app{"temper-server: accepts training jobs, runs them, and keeps what they report", "temper-server"};
  app.set_version_flag("--version", "temper-server " + version);
  app.get_formatter()->column_width(34);
  app.add_option("--data-dir", data_dir, "Where jobs are kept, created when missing")->capture_default_str();
  app.add_option("--listen", listen, "Address for gRPC; port 0 takes any free one")->capture_default_str();
  app.add_option("--http", http, "Address for the web page, /metrics and /healthz")->capture_default_str();
  app.add_option("--health", health,
                 "Address for /healthz alone, always in plain text and for everybody: for probes that know no "
                 "certificate. It says nothing but that the server serves. Default: none");
  CLI::Option* certificate = app.add_option(
      "--tls-cert", tls_cert, "Certificate to show callers, with its chain (PEM): TLS, and tokens with it");
  CLI::Option* key =
      app.add_option("--tls-key", tls_key, "Its key (PEM). Files that change are taken over as they are");
  certificate->needs(key);
  key->needs(certificate);
  app.add_option("--tls-client-ca", tls_client_ca,
                 "Callers must show a certificate that one of these has signed (PEM): mutual TLS")
      ->needs(certificate);
  app.add_flag("--require-tokens", options.require_tokens,
               "Ask every caller for a token (`temper-server token`, `temper token`), for what its role allows");
  app.add_option("--max-calls-per-second", options.max_calls_per_second,
                 "Calls of each identity with a token, in the long run; 0: no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--max-watches", options.max_watches,
                 "Streams by which each identity, or each host of callers without a token, may follow jobs at a time")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--max-transfers", options.max_transfers,
                 "Uploads and downloads of each identity, or of each host of callers without a token, at a time")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--allow-uri", allow_uri,
                 "Places that jobs may name as model, data, adapter, output or resume_from: file:///data/**, "
                 "s3://bucket/team/**, gs://…, abfs://… and hf://org/** are all below. Any number. Default: whatever "
                 "the server can read or write")
      ->take_all();
  app.add_flag("--insecure", options.insecure,
               "Let addresses that other hosts reach be without TLS: what is sent, tokens too, can be read on the way, "
               "and without --require-tokens everybody there can train and read what this server can");
  app.add_option("--slots", slots, "How many ranks may run at a time, by kind of device: cpu:N, cuda:N (GPUs)")
      ->capture_default_str();
  app.add_option("--worker-binary", worker_binary, "The temper-worker to start")->capture_default_str();
  app.add_option("--worker-env", options.worker_env,
                 "Variables of the server's environment that workers and ranks get besides the usual ones "
                 "(docs/OPERATIONS.md): NAME, or BEGINNING*. Any number")
      ->check(
          [](const std::string& pattern) { return std::string(WorkerEnvironment::CheckPattern(pattern).message()); })
      ->take_all();
  app.add_option("--max-restarts", options.retry.max_restarts,
                 "Restarts of a job without a new checkpoint between them, before it is given up")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--retry-backoff", retry_backoff, "Seconds before the first restart; they double with each")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option(
         "--silence-limit", silence_limit,
         "Seconds without a word from a node that is attached (it sends one every 5 s), after which its gang is "
         "ended and another takes its place")
      ->check(CLI::Range(6, 1'000'000))
      ->capture_default_str();
  app.add_option("--max-preflights", options.max_preflights,
                 "Jobs whose model and data are looked at at a time, before they are queued; 0: none are")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--max-unfinished-jobs", options.max_unfinished_jobs, "Jobs that wait or run at a time")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_flag("--trust-remote-code", options.trust_remote_code,
               "Let gangs run the Python code that lies beside a model which transformers does not know by itself: "
               "whoever may submit jobs then runs code of theirs on the nodes");
  app.add_option("--keep-ended", keep_ended_days,
                 "Days after which a job that has ended is deleted, as `temper delete` does it; 0: never")
      ->check(CLI::Range(0, 36'500))
      ->capture_default_str();
  app.add_option("--max-upload-mb", max_upload_mb,
                 "The largest file that `temper submit --upload` may send, in MiB; 0: none")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app.add_option("--max-uploads-mb", max_uploads_mb, "All uploaded files together, in MiB")
      ->check(CLI::Range(0, 1'000'000'000))
      ->capture_default_str();
  app.add_option("--log-level", log_level, "Least severe lines that are logged")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  app.add_option("--log-format", log_format, "'json': an object a line, for machines; of the workers, too")
      ->check(CLI::IsMember({"text", "json"}))
      ->envname(kLogFormatVariable)
      ->capture_default_str();
  const TokenCommand token(app, data_dir);
  app.footer(kFooter);
  try {
    app.parse(argc, argv);
    if (token.asked_for()) {
      exit_code = token.Run();
      return false;
    }
    options.data_dir = std::filesystem::absolute(data_dir);
    options.worker_binary = std::filesystem::absolute(worker_binary);
    options.listen = Take("--listen", ListenAddress::Parse(listen));
    options.http = Take("--http", ListenAddress::Parse(http));
    if (!health.empty()) options.health = Take("--health", ListenAddress::Parse(health));
    const auto absolute = [](const std::string& file) {
      return file.empty() ? std::filesystem::path() : std::filesystem::absolute(file);
    };
    options.uris = Take("--allow-uri", UriPolicy::Parse(allow_uri, options.data_dir / "uploads"));
    options.tls = {absolute(tls_cert), absolute(tls_key), absolute(tls_client_ca)};
    if (!tls_cert.empty()) options.require_tokens = true;
    options.slots = Take("--slots", ParseDeviceSlots(slots));
    const auto cuda = options.slots.find("cuda");
    const int gpus = cuda == options.slots.end() ? 0 : cuda->second;
    options.gpus = Take("--slots", NameGpus(gpus, std::getenv("CUDA_VISIBLE_DEVICES")));
    options.keep_ended = std::chrono::hours(24 * keep_ended_days);
    options.max_upload_bytes = max_upload_mb << 20;
    options.max_uploads_bytes = max_uploads_mb << 20;
    options.log_level = log_level;
    options.log_format = log_format;
    options.silence_limit = std::chrono::seconds(silence_limit);
    options.retry.first_backoff = std::chrono::seconds(retry_backoff);
  } catch (const CLI::ParseError& e) {
    exit_code = app.exit(e) == 0 ? kServerOk : kServerUsage;
    return false;
  }
  return true;
}

}  // namespace temper
