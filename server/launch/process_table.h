// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace temper {

// A process as /proc describes it. pid and start time name it uniquely until the next boot.
struct ProcessInfo {
  pid_t pid = 0;
  pid_t session = 0;
  uint64_t start_time = 0;  // clock ticks since boot
  bool zombie = false;      // dead, but not yet waited for
};

// Nothing when there is no such process.
std::optional<ProcessInfo> ReadProcess(pid_t pid);

// All of this host (of this pid namespace).
std::vector<ProcessInfo> AllProcesses();

// Whether the process was started with exactly `entry` ("NAME=value") in its environment. False when that can't be read
// (another user's, a zombie).
bool HasEnvironmentEntry(pid_t pid, const std::string& entry);

// Differs after each boot.
std::string BootId();

// A descriptor of the process (pidfd_open(2), close-on-exec), or -1. Through it a signal reaches this process or none,
// and it becomes readable when the process is dead.
int OpenPidfd(pid_t pid);
// Sends `signal`; false when the process is gone.
bool SendSignal(int pidfd, int signal);

}  // namespace temper
