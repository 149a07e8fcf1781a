// SPDX-License-Identifier: Apache-2.0
#include "server/launch/process_table.h"

#include <dirent.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace temper {
namespace {

std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

std::optional<ProcessInfo> ReadProcess(pid_t pid) {
  const std::string stat = ReadWhole(absl::StrCat("/proc/", pid, "/stat"));
  // The second field is the command in parentheses, which may hold spaces and parentheses of its own; proc(5).
  const size_t command_end = stat.rfind(')');
  if (command_end == std::string::npos) return std::nullopt;
  std::istringstream fields(stat.substr(command_end + 1));
  ProcessInfo info;
  info.pid = pid;
  char state = 0;
  std::string skipped;
  pid_t parent = 0;
  pid_t group = 0;
  fields >> state >> parent >> group >> info.session;
  int threads = 0;
  for (int field = 7; field < 20; ++field) fields >> skipped;
  fields >> threads >> skipped >> info.start_time;
  if (!fields) return std::nullopt;
  // The first thread may be over before the others, which hold memory and devices.
  info.zombie = (state == 'Z' || state == 'X') && threads <= 1;
  return info;
}

std::vector<ProcessInfo> AllProcesses() {
  std::vector<ProcessInfo> processes;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir("/proc"), closedir);
  while (directory != nullptr) {
    const dirent* entry = readdir(directory.get());
    if (entry == nullptr) break;
    pid_t pid = 0;
    if (!absl::SimpleAtoi(entry->d_name, &pid)) continue;
    if (auto info = ReadProcess(pid)) processes.push_back(*info);
  }
  return processes;
}

bool HasEnvironmentEntry(pid_t pid, const std::string& entry) {
  // Entries end with a NUL each.
  std::istringstream environment(ReadWhole(absl::StrCat("/proc/", pid, "/environ")));
  std::string found;
  while (std::getline(environment, found, '\0')) {
    if (found == entry) return true;
  }
  return false;
}

std::string BootId() {
  std::string id = ReadWhole("/proc/sys/kernel/random/boot_id");
  absl::StripAsciiWhitespace(&id);
  return id;
}

int OpenPidfd(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

bool SendSignal(int pidfd, int signal) {
  return pidfd >= 0 && syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0;
}

}  // namespace temper
