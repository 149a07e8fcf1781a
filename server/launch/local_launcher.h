// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "nlohmann/json_fwd.hpp"
#include "server/launch/exit_explanation.h"
#include "server/launch/launcher.h"
#include "server/launch/process_table.h"
#include "server/launch/worker_environment.h"

namespace temper {

struct LocalLauncherOptions {
  std::filesystem::path worker_binary;
  WorkerEnvironment environment;
  // GPUs of this host that gangs may use, each for one worker at a time: as CUDA_VISIBLE_DEVICES names them.
  std::vector<std::string> gpus;
  // Between SIGTERM and SIGKILL. A worker gives its ranks 25 s to commit a checkpoint, and then the server 5 s to take
  // its last reports.
  std::chrono::milliseconds stop_grace{40'000};
};

// Starts temper-worker on this host: a session of its own, output to RUN_DIR/worker.log, nothing of the server's open
// in it, so that it neither dies with the server nor blocks on it.
//
// All nodes of a gang are workers on this host, each in a directory of its own (NodeDirectory). What belongs to one:
// the worker (pid, start time, boot id), its session, and whatever was started with its TEMPER_RUN_DIR in its
// environment; so it is found again even if the server died between starting it and noting its pid. When the worker is
// dead the rest is killed, and only when nothing is left the node counts as gone, and the gang when all nodes are. A
// worker that is our child is waited for last: until then nobody else can get its pid.
class LocalLauncher final : public Launcher {
 public:
  explicit LocalLauncher(LocalLauncherOptions options);
  // Gangs that run go on running.
  ~LocalLauncher() override;

  void OnExit(ExitCallback on_exit, NodeLossCallback on_node_loss) override;
  absl::StatusOr<std::string> Launch(const GangSpec& spec) override;
  absl::Status Recover(const GangKey& key, int32_t nodes, const std::filesystem::path& run_dir,
                       const std::string& handle) override;
  void Stop(const GangKey& key) override;
  void Kill(const GangKey& key) override;

 private:
  using TimePoint = std::chrono::steady_clock::time_point;
  struct Worker {
    std::filesystem::path directory;
    pid_t pid = 0;
    int pidfd = -1;         // -1 once it is dead, or if it was never found
    bool is_child = false;  // ours to wait for
    bool gone = false;      // with all that it had
    std::vector<std::string> gpus;
    std::optional<TimePoint> kill_at;
  };
  struct Gang {
    std::vector<Worker> workers;  // by node
    bool stopping = false;
    std::vector<WorkerExit> exits;  // of those that are gone, in their order
  };
  struct Exits {
    std::vector<NodeLoss> nodes;
    std::vector<GangExit> gangs;
  };

  // So many that no worker has, nor one of these. RESOURCE_EXHAUSTED when there are fewer.
  absl::StatusOr<std::vector<std::string>> FreeGpus(int32_t count, const std::vector<Worker>& others) const;
  absl::StatusOr<Worker> StartWatched(const GangSpec& spec, int32_t node, std::vector<std::string> gpus) const;
  // Kills what has been started just now, and waits for it.
  void End(const Worker& worker) const;
  static Worker FindWorker(const std::filesystem::path& directory, const nlohmann::json& handle);
  void Watch();
  // Milliseconds until the worker has to be looked at again, if nothing happens to it; adds what tells that something
  // has.
  static std::chrono::milliseconds WatchWorker(const Worker& worker, std::vector<pollfd>& watched);
  Exits Advance();
  // Whether nothing is left of the worker.
  bool AdvanceWorker(const GangKey& key, Worker& worker);
  std::vector<pid_t> Members(const Worker& worker) const;
  void Wake();

  const LocalLauncherOptions options_;
  const int wake_fd_;
  std::mutex mutex_;
  // Guarded by mutex_:
  ExitCallback on_exit_;
  NodeLossCallback on_node_loss_;
  std::map<GangKey, Gang> gangs_;
  bool closing_ = false;

  std::thread watcher_;  // last: it uses everything above
};

}  // namespace temper
