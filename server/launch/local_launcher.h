// SPDX-License-Identifier: Apache-2.0
#pragma once

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

#include "server/launch/launcher.h"
#include "server/launch/process_table.h"

namespace temper {

struct LocalLauncherOptions {
  std::filesystem::path worker_binary;
  // Between SIGTERM and SIGKILL. A worker gives its ranks 25 s to commit a checkpoint, and then the server 5 s to take
  // its last reports.
  std::chrono::milliseconds stop_grace{40'000};
};

// Starts temper-worker on this host: a session of its own, output to RUN_DIR/worker.log, nothing of the server's open
// in it, so that it neither dies with the server nor blocks on it.
//
// What belongs to a gang: the worker (pid, start time, boot id), its session, and whatever was started with the gang's
// TEMPER_RUN_DIR in its environment; so a gang is found again even if the server died between starting it and noting
// its pid. When the worker is dead the rest is killed, and only when nothing is left the gang counts as gone. A worker
// that is our child is waited for last: until then nobody else can get its pid.
class LocalLauncher final : public Launcher {
 public:
  explicit LocalLauncher(LocalLauncherOptions options);
  // Gangs that run go on running.
  ~LocalLauncher() override;

  void OnExit(ExitCallback callback) override;
  absl::StatusOr<std::string> Launch(const GangSpec& spec) override;
  absl::Status Recover(const GangKey& key, const std::filesystem::path& run_dir, const std::string& handle) override;
  void Stop(const GangKey& key) override;
  void Kill(const GangKey& key) override;

 private:
  using TimePoint = std::chrono::steady_clock::time_point;
  struct Gang {
    std::filesystem::path run_dir;
    pid_t worker = 0;
    int pidfd = -1;         // of the worker; -1 once it is dead, or if it was never found
    bool is_child = false;  // ours to wait for
    bool stopping = false;
    std::optional<TimePoint> kill_at;
  };

  void Watch();
  std::vector<GangExit> Advance();
  std::vector<pid_t> Members(const Gang& gang) const;
  void Wake();

  const LocalLauncherOptions options_;
  const int wake_fd_;
  std::mutex mutex_;
  // Guarded by mutex_:
  ExitCallback on_exit_;
  std::map<GangKey, Gang> gangs_;
  bool closing_ = false;

  std::thread watcher_;  // last: it uses everything above
};

}  // namespace temper
