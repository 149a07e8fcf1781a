// SPDX-License-Identifier: Apache-2.0
#include "server/launch/local_launcher.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/launch/exit_explanation.h"
#include "server/launch/worker_process.h"

namespace temper {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// The rest of a gang whose worker is dead has been killed already; this is how often we look whether it is gone.
constexpr milliseconds kDrainInterval{20};

std::string EncodeHandle(const ProcessInfo& worker) {
  return nlohmann::json(
             {{"pid", static_cast<uint64_t>(worker.pid)}, {"start_time", worker.start_time}, {"boot_id", BootId()}})
      .dump();
}

// The worker that `handle` names, if it lives.
std::optional<ProcessInfo> FindByHandle(const std::string& handle) {
  const auto json = nlohmann::json::parse(handle, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.size() != 3) return std::nullopt;
  for (const char* number : {"pid", "start_time"}) {
    if (!json.contains(number) || !json[number].is_number_unsigned()) return std::nullopt;
  }
  if (!json.contains("boot_id") || json["boot_id"] != BootId()) return std::nullopt;
  const auto process = ReadProcess(json["pid"].get<pid_t>());
  const bool same = process && process->start_time == json["start_time"].get<uint64_t>() && !process->zombie;
  return same ? process : std::nullopt;
}

// The worker among processes that bear the gang's mark: it leads their session.
std::optional<ProcessInfo> FindByMark(const std::string& mark) {
  for (const ProcessInfo& process : AllProcesses()) {
    if (process.pid == process.session && !process.zombie && HasEnvironmentEntry(process.pid, mark)) return process;
  }
  return std::nullopt;
}

bool IsReadable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return poll(&entry, 1, 0) == 1;
}

// Waits for a dead child.
std::optional<int> Reap(pid_t pid) {
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) return std::nullopt;
  return status;
}

void KillAll(const std::vector<pid_t>& pids, const std::string& mark, pid_t session) {
  for (const pid_t pid : pids) {
    const int pidfd = OpenPidfd(pid);
    // Looked at again through the descriptor: the pid may have been given to another since.
    const auto process = ReadProcess(pid);
    const bool in_session = process && session != 0 && process->session == session;
    if (in_session || HasEnvironmentEntry(pid, mark)) SendSignal(pidfd, SIGKILL);
    if (pidfd >= 0) close(pidfd);
  }
}

}  // namespace

LocalLauncher::LocalLauncher(LocalLauncherOptions options)
    : options_(std::move(options)), wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  watcher_ = std::thread([this] { Watch(); });
}

LocalLauncher::~LocalLauncher() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  Wake();
  watcher_.join();
  for (auto& [key, gang] : gangs_) {
    if (gang.pidfd >= 0) close(gang.pidfd);
  }
  close(wake_fd_);
}

void LocalLauncher::OnExit(ExitCallback callback) {
  std::lock_guard lock(mutex_);
  on_exit_ = std::move(callback);
}

absl::StatusOr<std::string> LocalLauncher::Launch(const GangSpec& spec) {
  std::lock_guard lock(mutex_);
  if (gangs_.contains(spec.key)) {
    return absl::AlreadyExistsError(
        absl::StrCat("epoch ", spec.key.epoch, " of jobs/", spec.key.job_id, " was launched before"));
  }
  const auto pid = StartWorker(options_.worker_binary, spec);
  if (!pid.ok()) return pid.status();
  Gang gang;
  gang.run_dir = spec.run_dir;
  gang.worker = *pid;
  gang.is_child = true;
  gang.pidfd = OpenPidfd(*pid);
  if (gang.pidfd < 0) {
    const absl::Status status = absl::UnavailableError(absl::StrCat("can't watch the worker: ", std::strerror(errno)));
    kill(*pid, SIGKILL);
    Reap(*pid);
    return status;
  }
  // Ours and not waited for, so it is there, dead or alive.
  ProcessInfo worker;
  if (auto found = ReadProcess(*pid)) worker = *found;
  worker.pid = *pid;
  gangs_.emplace(spec.key, std::move(gang));
  Wake();
  return EncodeHandle(worker);
}

absl::Status LocalLauncher::Recover(const GangKey& key, const std::filesystem::path& run_dir,
                                    const std::string& handle) {
  std::lock_guard lock(mutex_);
  if (gangs_.contains(key)) {
    return absl::AlreadyExistsError(
        absl::StrCat("epoch ", key.epoch, " of jobs/", key.job_id, " is in our charge already"));
  }
  Gang gang;
  gang.run_dir = run_dir;
  auto worker = FindByHandle(handle);
  if (!worker) worker = FindByMark(GangMark(run_dir));
  if (worker) {
    gang.worker = worker->pid;
    gang.pidfd = OpenPidfd(worker->pid);
    // Now that the descriptor pins the pid: is it still the same process?
    const auto again = ReadProcess(worker->pid);
    if (gang.pidfd >= 0 && (!again || again->start_time != worker->start_time)) {
      close(gang.pidfd);
      gang.pidfd = -1;
    }
  }
  gangs_.emplace(key, std::move(gang));
  Wake();
  return absl::OkStatus();
}

void LocalLauncher::Stop(const GangKey& key) {
  std::lock_guard lock(mutex_);
  const auto found = gangs_.find(key);
  if (found == gangs_.end() || found->second.stopping) return;
  found->second.stopping = true;
  found->second.kill_at = steady_clock::now() + options_.stop_grace;
  SendSignal(found->second.pidfd, SIGTERM);
  Wake();
}

void LocalLauncher::Kill(const GangKey& key) {
  std::lock_guard lock(mutex_);
  const auto found = gangs_.find(key);
  if (found == gangs_.end()) return;
  found->second.stopping = true;
  SendSignal(found->second.pidfd, SIGKILL);
  Wake();
}

void LocalLauncher::Wake() {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the watcher is about to wake up.
  (void)!write(wake_fd_, &one, sizeof(one));
}

void LocalLauncher::Watch() {
  while (true) {
    std::vector<pollfd> watched = {{wake_fd_, POLLIN, 0}};
    int timeout_ms = -1;
    ExitCallback on_exit;
    std::vector<GangExit> exits;
    {
      std::lock_guard lock(mutex_);
      if (closing_) return;
      exits = Advance();
      on_exit = on_exit_;
      const auto now = steady_clock::now();
      for (const auto& [key, gang] : gangs_) {
        milliseconds wait{INT32_MAX};
        if (gang.pidfd < 0) {
          wait = kDrainInterval;
        } else {
          watched.push_back({gang.pidfd, POLLIN, 0});
          if (gang.kill_at) wait = std::chrono::ceil<milliseconds>(*gang.kill_at - now);
        }
        const int wait_ms = static_cast<int>(std::clamp<int64_t>(wait.count(), 0, INT32_MAX));
        if (wait_ms != INT32_MAX) timeout_ms = timeout_ms < 0 ? wait_ms : std::min(timeout_ms, wait_ms);
      }
    }
    for (const GangExit& exit : exits) on_exit(exit);
    poll(watched.data(), watched.size(), timeout_ms);
    uint64_t count = 0;
    (void)!read(wake_fd_, &count, sizeof(count));
  }
}

// One look at every gang, with mutex_ held. Returns those that are gone.
std::vector<GangExit> LocalLauncher::Advance() {
  std::vector<GangExit> exits;
  for (auto it = gangs_.begin(); it != gangs_.end();) {
    Gang& gang = it->second;
    if (gang.pidfd >= 0 && gang.kill_at && steady_clock::now() >= *gang.kill_at) {
      spdlog::warn("jobs/{}: the worker did not end within {} ms of SIGTERM; killing it", it->first.job_id,
                   options_.stop_grace.count());
      gang.kill_at.reset();
      SendSignal(gang.pidfd, SIGKILL);
    }
    if (gang.pidfd >= 0 && IsReadable(gang.pidfd)) {
      close(gang.pidfd);
      gang.pidfd = -1;
    }
    if (gang.pidfd >= 0) {
      ++it;
      continue;
    }
    if (const std::vector<pid_t> rest = Members(gang); !rest.empty()) {
      KillAll(rest, GangMark(gang.run_dir), gang.is_child ? gang.worker : 0);
      ++it;
      continue;
    }
    const auto status = gang.is_child ? Reap(gang.worker) : std::nullopt;
    exits.push_back(ExplainExit(it->first, gang.run_dir, status));
    it = gangs_.erase(it);
  }
  return exits;
}

// Of a gang whose worker is dead, what lives. The session counts only while a child that we have not waited for keeps
// others from getting its number.
std::vector<pid_t> LocalLauncher::Members(const Gang& gang) const {
  const std::string mark = GangMark(gang.run_dir);
  std::vector<pid_t> members;
  for (const ProcessInfo& process : AllProcesses()) {
    if (process.zombie || process.pid == getpid()) continue;
    const bool in_session = gang.is_child && process.session == gang.worker;
    if (in_session || HasEnvironmentEntry(process.pid, mark)) members.push_back(process.pid);
  }
  return members;
}

}  // namespace temper
