// SPDX-License-Identifier: Apache-2.0
#include "common/fault_point.h"

#ifdef TEMPER_FAULT_POINTS

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace temper {
namespace {

constexpr char kPace[] = "pace=";

struct Fault {
  std::string name;
  int hit = 1;
  std::string action;
  std::string marker;
  std::atomic<int> hits = 0;
};

// NAME[@HIT][:ACTION], …
std::deque<Fault> FromEnvironment() {
  std::deque<Fault> faults;
  const char* text = std::getenv("TEMPER_FAULT");
  const char* directory = std::getenv("TEMPER_FAULT_DIR");
  if (text == nullptr || directory == nullptr) return faults;
  for (const std::string& each : std::vector<std::string>(absl::StrSplit(text, ',', absl::SkipEmpty()))) {
    const std::pair<std::string, std::string> what = absl::StrSplit(each, absl::MaxSplits(':', 1));
    const std::pair<std::string, std::string> where = absl::StrSplit(what.first, absl::MaxSplits('@', 1));
    Fault& fault = faults.emplace_back();
    fault.name = where.first;
    if (!where.second.empty() && !absl::SimpleAtoi(where.second, &fault.hit)) std::abort();
    fault.action = what.second;
    fault.marker = std::string(directory) + "/" + fault.name;
  }
  return faults;
}

// Whether nobody has done it before.
bool Mark(const std::string& marker) {
  const int fd = open(marker.c_str(), O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd >= 0) close(fd);
  return fd >= 0;
}

void Do(absl::string_view action) {
  double seconds = 0;
  if (action.empty() || action == "kill") {
    std::raise(SIGKILL);
  } else if (action == "stop") {
    // All threads, at once.
    kill(getpid(), SIGSTOP);
  } else if ((absl::ConsumePrefix(&action, "delay=") || absl::ConsumePrefix(&action, kPace)) &&
             absl::SimpleAtod(action, &seconds)) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  } else {
    std::abort();
  }
}

}  // namespace

void FaultPoint(std::string_view name) {
  static std::deque<Fault> faults = FromEnvironment();
  for (Fault& fault : faults) {
    if (name != fault.name) continue;
    const bool due = fault.action.starts_with(kPace) || (++fault.hits == fault.hit && Mark(fault.marker));
    if (due) Do(fault.action);
  }
}

}  // namespace temper

#endif
