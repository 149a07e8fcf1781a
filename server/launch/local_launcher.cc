// SPDX-License-Identifier: Apache-2.0
#include "server/launch/local_launcher.h"

#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/launch/worker_process.h"

namespace temper {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// What a dead worker has left has been killed already; this is how often we look whether it is gone.
constexpr milliseconds kDrainInterval{20};
constexpr milliseconds kNoWait{INT32_MAX};

nlohmann::json HandleOf(const ProcessInfo& worker) {
  return {{"pid", static_cast<uint64_t>(worker.pid)}, {"start_time", worker.start_time}, {"boot_id", BootId()}};
}

// A list, node by node. Where the gang has one node, that one's handle alone will do.
nlohmann::json HandleOfNode(const nlohmann::json& handle, size_t node) {
  if (handle.is_array()) return node < handle.size() ? handle[node] : nlohmann::json();
  return node == 0 ? handle : nlohmann::json();
}

// The worker that `json` names, if it lives.
std::optional<ProcessInfo> FindByHandle(const nlohmann::json& json) {
  if (!json.is_object() || json.size() != 3) return std::nullopt;
  for (const char* number : {"pid", "start_time"}) {
    if (!json.contains(number) || !json[number].is_number_unsigned()) return std::nullopt;
  }
  if (!json.contains("boot_id") || json["boot_id"] != BootId()) return std::nullopt;
  const auto process = ReadProcess(json["pid"].get<pid_t>());
  const bool same = process && process->start_time == json["start_time"].get<uint64_t>() && !process->zombie;
  return same ? process : std::nullopt;
}

// The worker among processes that bear its mark: it leads their session.
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
    for (const Worker& worker : gang.workers) {
      if (worker.pidfd >= 0) close(worker.pidfd);
    }
  }
  close(wake_fd_);
}

void LocalLauncher::OnExit(ExitCallback on_exit, NodeLossCallback on_node_loss) {
  std::lock_guard lock(mutex_);
  on_exit_ = std::move(on_exit);
  on_node_loss_ = std::move(on_node_loss);
}

absl::StatusOr<std::string> LocalLauncher::Launch(const GangSpec& spec) {
  std::lock_guard lock(mutex_);
  if (gangs_.contains(spec.key)) {
    return absl::AlreadyExistsError(
        absl::StrCat("epoch ", spec.key.epoch, " of jobs/", spec.key.job_id, " was launched before"));
  }
  Gang gang;
  nlohmann::json handle = nlohmann::json::array();
  for (int32_t node = 0; node < spec.nodes; ++node) {
    auto gpus = FreeGpus(spec.gpus_per_node, gang.workers);
    auto worker = gpus.ok() ? StartWatched(spec, node, *std::move(gpus)) : gpus.status();
    if (!worker.ok()) {
      // They have seen no server yet: nobody misses them.
      for (const Worker& started : gang.workers) End(started);
      return worker.status();
    }
    // Ours and not waited for, so it is there, dead or alive.
    ProcessInfo process;
    if (auto found = ReadProcess(worker->pid)) process = *found;
    process.pid = worker->pid;
    handle.push_back(HandleOf(process));
    gang.workers.push_back(*std::move(worker));
  }
  gangs_.emplace(spec.key, std::move(gang));
  Wake();
  return handle.dump();
}

absl::StatusOr<std::vector<std::string>> LocalLauncher::FreeGpus(int32_t count,
                                                                 const std::vector<Worker>& others) const {
  std::set<std::string> used;
  const auto use = [&](const std::vector<Worker>& workers) {
    for (const Worker& worker : workers) {
      if (!worker.gone) used.insert(worker.gpus.begin(), worker.gpus.end());
    }
  };
  use(others);
  for (const auto& [key, gang] : gangs_) use(gang.workers);
  std::vector<std::string> free;
  for (const std::string& gpu : options_.gpus) {
    if (!used.contains(gpu) && static_cast<int32_t>(free.size()) < count) free.push_back(gpu);
  }
  if (static_cast<int32_t>(free.size()) == count) return free;
  return absl::ResourceExhaustedError(
      absl::StrCat("needs ", count, " GPUs for a node, but ", free.size(), " of ", options_.gpus.size(), " are free"));
}

absl::StatusOr<LocalLauncher::Worker> LocalLauncher::StartWatched(const GangSpec& spec, int32_t node,
                                                                  std::vector<std::string> gpus) const {
  const auto pid = StartWorker(options_.worker_binary, options_.environment, spec, node, gpus);
  if (!pid.ok()) return pid.status();
  Worker worker;
  worker.gpus = std::move(gpus);
  worker.directory = NodeDirectory(spec.run_dir, node);
  worker.pid = *pid;
  worker.is_child = true;
  worker.pidfd = OpenPidfd(*pid);
  if (worker.pidfd >= 0) return worker;
  const absl::Status status = absl::UnavailableError(absl::StrCat("can't watch the worker: ", std::strerror(errno)));
  End(worker);
  return status;
}

void LocalLauncher::End(const Worker& worker) const {
  kill(worker.pid, SIGKILL);
  for (auto rest = Members(worker); !rest.empty(); rest = Members(worker)) {
    KillAll(rest, NodeMark(worker.directory), worker.pid);
    std::this_thread::sleep_for(kDrainInterval);
  }
  Reap(worker.pid);
  if (worker.pidfd >= 0) close(worker.pidfd);
}

absl::Status LocalLauncher::Recover(const GangKey& key, int32_t nodes, const std::filesystem::path& run_dir,
                                    const std::string& handle) {
  std::lock_guard lock(mutex_);
  if (gangs_.contains(key)) {
    return absl::AlreadyExistsError(
        absl::StrCat("epoch ", key.epoch, " of jobs/", key.job_id, " is in our charge already"));
  }
  const auto json = nlohmann::json::parse(handle, nullptr, /*allow_exceptions=*/false);
  Gang gang;
  for (int32_t node = 0; node < nodes; ++node) {
    gang.workers.push_back(FindWorker(NodeDirectory(run_dir, node), HandleOfNode(json, node)));
  }
  gangs_.emplace(key, std::move(gang));
  Wake();
  return absl::OkStatus();
}

LocalLauncher::Worker LocalLauncher::FindWorker(const std::filesystem::path& directory, const nlohmann::json& handle) {
  Worker worker;
  worker.directory = directory;
  worker.gpus = GpusOf(directory);
  auto process = FindByHandle(handle);
  if (!process) process = FindByMark(NodeMark(directory));
  if (!process) return worker;
  worker.pid = process->pid;
  worker.pidfd = OpenPidfd(process->pid);
  // Now that the descriptor pins the pid: is it still the same process?
  const auto again = ReadProcess(process->pid);
  if (worker.pidfd >= 0 && (!again || again->start_time != process->start_time)) {
    close(worker.pidfd);
    worker.pidfd = -1;
  }
  return worker;
}

void LocalLauncher::Stop(const GangKey& key) {
  std::lock_guard lock(mutex_);
  const auto found = gangs_.find(key);
  if (found == gangs_.end() || found->second.stopping) return;
  found->second.stopping = true;
  for (Worker& worker : found->second.workers) {
    worker.kill_at = steady_clock::now() + options_.stop_grace;
    SendSignal(worker.pidfd, SIGTERM);
  }
  Wake();
}

void LocalLauncher::Kill(const GangKey& key) {
  std::lock_guard lock(mutex_);
  const auto found = gangs_.find(key);
  if (found == gangs_.end()) return;
  found->second.stopping = true;
  for (const Worker& worker : found->second.workers) SendSignal(worker.pidfd, SIGKILL);
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
    milliseconds wait = kNoWait;
    ExitCallback on_exit;
    NodeLossCallback on_node_loss;
    Exits exits;
    {
      std::lock_guard lock(mutex_);
      if (closing_) return;
      exits = Advance();
      on_exit = on_exit_;
      on_node_loss = on_node_loss_;
      for (const auto& [key, gang] : gangs_) {
        for (const Worker& worker : gang.workers) wait = std::min(wait, WatchWorker(worker, watched));
      }
    }
    for (const NodeLoss& exit : exits.nodes) on_node_loss(exit);
    for (const GangExit& exit : exits.gangs) on_exit(exit);
    poll(watched.data(), watched.size(), wait == kNoWait ? -1 : static_cast<int>(wait.count()));
    uint64_t count = 0;
    (void)!read(wake_fd_, &count, sizeof(count));
  }
}

milliseconds LocalLauncher::WatchWorker(const Worker& worker, std::vector<pollfd>& watched) {
  if (worker.gone) return kNoWait;
  if (worker.pidfd < 0) return kDrainInterval;
  watched.push_back({worker.pidfd, POLLIN, 0});
  if (!worker.kill_at) return kNoWait;
  return std::clamp(std::chrono::ceil<milliseconds>(*worker.kill_at - steady_clock::now()), milliseconds(0), kNoWait);
}

// One look at every gang, with mutex_ held. Returns what is gone.
LocalLauncher::Exits LocalLauncher::Advance() {
  Exits exits;
  for (auto it = gangs_.begin(); it != gangs_.end();) {
    auto& [key, gang] = *it;
    for (size_t node = 0; node < gang.workers.size(); ++node) {
      Worker& worker = gang.workers[node];
      if (worker.gone || !AdvanceWorker(key, worker)) continue;
      worker.gone = true;
      WorkerExit exit = ExplainExit(worker.directory, worker.is_child ? Reap(worker.pid) : std::nullopt);
      const bool has_others = gang.workers.size() > 1;
      if (has_others) exit.message = absl::StrCat("node ", node, ": ", exit.message);
      if (has_others && (exit.names_cause || !exit.left_word)) {
        exits.nodes.push_back({key, static_cast<int32_t>(node), exit.cause, exit.message, !exit.left_word});
      }
      gang.exits.push_back(std::move(exit));
    }
    if (gang.exits.size() < gang.workers.size()) {
      ++it;
      continue;
    }
    const WorkerExit exit = MostTelling(gang.exits);
    exits.gangs.push_back({key, exit.cause, exit.message});
    it = gangs_.erase(it);
  }
  return exits;
}

bool LocalLauncher::AdvanceWorker(const GangKey& key, Worker& worker) {
  if (worker.pidfd >= 0 && worker.kill_at && steady_clock::now() >= *worker.kill_at) {
    spdlog::warn("jobs/{}: the worker did not end within {} ms of SIGTERM; killing it", key.job_id,
                 options_.stop_grace.count());
    worker.kill_at.reset();
    SendSignal(worker.pidfd, SIGKILL);
  }
  if (worker.pidfd >= 0 && IsReadable(worker.pidfd)) {
    close(worker.pidfd);
    worker.pidfd = -1;
  }
  if (worker.pidfd >= 0) return false;
  const std::vector<pid_t> rest = Members(worker);
  KillAll(rest, NodeMark(worker.directory), worker.is_child ? worker.pid : 0);
  return rest.empty();
}

// Of a worker that is dead, what lives. The session counts only while a child that we have not waited for keeps others
// from getting its number.
std::vector<pid_t> LocalLauncher::Members(const Worker& worker) const {
  const std::string mark = NodeMark(worker.directory);
  std::vector<pid_t> members;
  for (const ProcessInfo& process : AllProcesses()) {
    if (process.zombie || process.pid == getpid()) continue;
    const bool in_session = worker.is_child && process.session == worker.pid;
    if (in_session || HasEnvironmentEntry(process.pid, mark)) members.push_back(process.pid);
  }
  return members;
}

}  // namespace temper
