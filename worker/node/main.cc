// SPDX-License-Identifier: Apache-2.0
// temper-worker: one node of a gang. Torch-free, so that it can always report.
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <random>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"
#include "common/log.h"
#include "spdlog/spdlog.h"
#include "worker/node/exit_record.h"
#include "worker/node/node.h"
#include "worker/node/server_link.h"
#include "worker/node/signal_watcher.h"

namespace {

constexpr char kTokenVariable[] = "TEMPER_WORKER_TOKEN";

std::string RandomIncarnation() {
  std::random_device random;
  return absl::StrFormat("%08x%08x%08x%08x", random(), random(), random(), random());
}

std::filesystem::path BesideThisBinary(const std::string& name) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
}

int Finish(const std::filesystem::path& run_dir, const temper::ExitRecord& record) {
  if (record.exit != temper::NodeExit::kOk) spdlog::warn("exit: {}", record.message);
  if (const absl::Status status = temper::WriteExitRecord(run_dir, record); !status.ok()) {
    spdlog::error("{}", std::string(status.message()));
  }
  return static_cast<int>(record.exit);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "temper-worker: one node of a gang. A launcher of temper-server starts it.\n"
      "The token comes in the environment, as TEMPER_WORKER_TOKEN."};
  std::string server;
  std::filesystem::path run_dir;
  temper::v1::Hello hello;
  temper::NodeOptions options;
  options.rank_binary = BesideThisBinary("temper-rank");
  double absence_limit_s = 3600;
  double stop_grace_s = 10;
  double checkpoint_grace_s = 25;
  std::string job;
  int32_t epoch = 0;
  int32_t node = 0;
  app.add_option("--server", server, "HOST:PORT of temper-server")->required();
  app.add_option("--job", job, "The job, as jobs/ID")->required();
  app.add_option("--epoch", epoch, "How many times the gang was launched")->required();
  app.add_option("--node", node, "Index of this node in the gang, from 0")->required();
  app.add_option("--run-dir", run_dir, "Where exit.json is written; it must exist")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--address", options.address, "Where the gang's other nodes reach this one: a name or an address")
      ->capture_default_str();
  app.add_option("--rank-binary", options.rank_binary, "temper-rank")->capture_default_str();
  app.add_option("--server-absence-limit", absence_limit_s, "Stop after so many seconds without a server")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--stop-grace", stop_grace_s, "Seconds between telling a rank to stop and killing it")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--checkpoint-grace", checkpoint_grace_s,
                 "Seconds that a rank has for its step and a checkpoint after SIGTERM")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(temper::NodeExit::kUsage);
  }

  const char* const log_format = std::getenv(temper::kLogFormatVariable);
  if (const absl::Status status =
          temper::SetUpLog("temper-worker", "info", log_format != nullptr ? log_format : "text");
      !status.ok()) {
    std::cerr << status << "\n";
    return static_cast<int>(temper::NodeExit::kUsage);
  }
  const char* token = std::getenv(kTokenVariable);
  if (token == nullptr || *token == '\0') {
    return Finish(run_dir, {temper::NodeExit::kUsage, temper::v1::FAILURE_CAUSE_LAUNCH,
                            "the environment has no TEMPER_WORKER_TOKEN: temper-worker is for a launcher to start"});
  }
  hello.set_job(job);
  hello.set_epoch(epoch);
  hello.set_node(node);
  hello.set_token(token);
  hello.set_incarnation(RandomIncarnation());
  hello.set_pid(getpid());
  hello.set_version(TEMPER_VERSION);
  options.stop_grace = std::chrono::milliseconds(static_cast<int64_t>(stop_grace_s * 1000));
  options.checkpoint_grace = std::chrono::milliseconds(static_cast<int64_t>(checkpoint_grace_s * 1000));
  temper::ServerLinkOptions link_options;
  link_options.absence_limit = std::chrono::milliseconds(static_cast<int64_t>(absence_limit_s * 1000));

  temper::BlockTerminationSignals();
  // gRPC's own remarks repeat what we say better.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  temper::Node this_node(options, temper::ServerChannel(server), hello, link_options);
  temper::SignalWatcher signals(
      [&this_node](const std::string& name) { this_node.Terminate("the node was told to end by " + name); });
  return Finish(run_dir, this_node.Run());
}
