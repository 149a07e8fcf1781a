// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <malloc.h>

#include <cstdint>
#include <fstream>
#include <string>

namespace temper {

// A line of /proc/self/status, in bytes: "VmRSS:", what the process has, or "VmHWM:", the most that it ever had (in
// this program: getrusage's begins with what the parent had).
inline int64_t MemoryStatus(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name)) return std::stoll(line.substr(line.find_first_of("0123456789"))) * 1024;
  }
  return 0;
}

// How much more than before the process had while `run` ran.
template <typename Run>
int64_t PeakBytesOf(Run run) {
  malloc_trim(0);  // what others have freed could be taken without being seen
  std::ofstream("/proc/self/clear_refs") << 5 << std::flush;  // VmHWM begins anew
  const int64_t before = MemoryStatus("VmRSS:");
  run();
  return MemoryStatus("VmHWM:") - before;
}

}  // namespace temper
