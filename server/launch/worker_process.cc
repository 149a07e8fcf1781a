// SPDX-License-Identifier: Apache-2.0
#include "server/launch/worker_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace temper {
namespace {

// In a node's directory: the names of its GPUs, with commas between them.
constexpr char kGpuFile[] = "gpus";

absl::Status Failed(const std::string& what, int error) {
  const std::string message = absl::StrCat(what, ": ", std::strerror(error));
  switch (error) {
    case EEXIST:
      return absl::AlreadyExistsError(message);
    case ENOENT:
      return absl::NotFoundError(message);
    case EACCES:
      return absl::PermissionDeniedError(message);
    default:
      return absl::UnavailableError(message);
  }
}

// What the worker is started with: its share of this process's environment, and what is the gang's own.
std::vector<std::string> EnvironmentOf(const GangSpec& spec, const WorkerEnvironment& shared,
                                       const std::filesystem::path& directory, const std::string& gpus) {
  std::vector<std::string> environment = shared.Select(environ);
  environment.push_back("TEMPER_WORKER_TOKEN=" + spec.token);
  environment.push_back(NodeMark(directory));
  environment.push_back("CUDA_VISIBLE_DEVICES=" + gpus);
  return environment;
}

absl::Status NoteGpus(const std::filesystem::path& directory, const std::string& gpus) {
  if (gpus.empty()) return absl::OkStatus();
  const std::filesystem::path path = directory / kGpuFile;
  std::ofstream file(path);
  if (file << gpus << std::flush) return absl::OkStatus();
  return Failed("can't write " + path.string(), errno);
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// posix_spawn's two objects, set up for a worker: own session, no signal blocked or ignored, standard streams as given,
// nothing else open.
class SpawnSetup {
 public:
  SpawnSetup(int input, int output) {
    posix_spawnattr_init(&attributes);
    sigset_t signals;
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes, &signals);
    sigfillset(&signals);
    posix_spawnattr_setsigdefault(&attributes, &signals);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  }
  ~SpawnSetup() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;

  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
};

}  // namespace

std::filesystem::path NodeDirectory(const std::filesystem::path& run_dir, int32_t node) {
  return node == 0 ? run_dir : run_dir / absl::StrCat("node-", node);
}

std::string NodeMark(const std::filesystem::path& node_directory) {
  return "TEMPER_RUN_DIR=" + node_directory.string();
}

std::vector<std::string> GpusOf(const std::filesystem::path& node_directory) {
  std::ifstream file(node_directory / kGpuFile);
  std::string names;
  std::getline(file, names);
  return absl::StrSplit(names, ',', absl::SkipEmpty());
}

absl::StatusOr<pid_t> StartWorker(const std::filesystem::path& binary, const WorkerEnvironment& shared,
                                  const GangSpec& spec, int32_t node, const std::vector<std::string>& gpus) {
  const std::filesystem::path directory = NodeDirectory(spec.run_dir, node);
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) return Failed("can't create the run directory " + directory.string(), error.value());
  const std::string log_path = (directory / "worker.log").string();
  const int log = open(log_path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0640);
  if (log < 0) return Failed("can't create " + log_path, errno);
  const std::string gpu_names = absl::StrJoin(gpus, ",");
  if (absl::Status noted = NoteGpus(directory, gpu_names); !noted.ok()) {
    close(log);
    return noted;
  }
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

  std::vector<std::string> arguments = {binary.string(),
                                        "--server",
                                        spec.server_address,
                                        "--job",
                                        "jobs/" + spec.key.job_id,
                                        "--epoch",
                                        absl::StrCat(spec.key.epoch),
                                        "--node",
                                        absl::StrCat(node),
                                        "--run-dir",
                                        directory.string()};
  std::vector<std::string> environment = EnvironmentOf(spec, shared, directory, gpu_names);
  const SpawnSetup setup(null, log);
  pid_t pid = 0;
  const int result = posix_spawn(&pid, binary.c_str(), &setup.actions, &setup.attributes, Pointers(arguments).data(),
                                 Pointers(environment).data());
  close(null);
  close(log);
  if (result != 0) return Failed("can't start " + binary.string(), result);
  return pid;
}

}  // namespace temper
