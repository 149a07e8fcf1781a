// SPDX-License-Identifier: Apache-2.0
#include "common/fault_point.h"

#ifdef TEMPER_FAULT_POINTS

#include <fcntl.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <string>

#include "absl/strings/numbers.h"

namespace temper {
namespace {

struct Fault {
  std::string name;
  int hit = 1;
  std::string marker;
};

Fault FromEnvironment() {
  const char* text = std::getenv("TEMPER_FAULT");
  const char* directory = std::getenv("TEMPER_FAULT_DIR");
  if (text == nullptr || directory == nullptr) return {};
  Fault fault{.name = text};
  if (const size_t at = fault.name.find('@'); at != std::string::npos) {
    if (!absl::SimpleAtoi(fault.name.substr(at + 1), &fault.hit)) return {};
    fault.name.resize(at);
  }
  fault.marker = std::string(directory) + "/" + fault.name;
  return fault;
}

}  // namespace

void FaultPoint(std::string_view name) {
  static const Fault fault = FromEnvironment();
  static std::atomic<int> hits = 0;
  if (fault.name.empty() || name != fault.name || ++hits != fault.hit) return;
  if (open(fault.marker.c_str(), O_CREAT | O_EXCL | O_CLOEXEC, 0600) >= 0) std::raise(SIGKILL);
}

}  // namespace temper

#endif
