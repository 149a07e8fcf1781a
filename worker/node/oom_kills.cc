// SPDX-License-Identifier: Apache-2.0
#include "worker/node/oom_kills.h"

#include <fstream>
#include <string>

#include "absl/strings/match.h"

namespace temper {

std::optional<int64_t> OomKills(const std::filesystem::path& own_cgroup, const std::filesystem::path& hierarchy) {
  // The line of version 2 is `0::/path`.
  std::ifstream cgroups(own_cgroup);
  std::string line;
  while (std::getline(cgroups, line) && !absl::StartsWith(line, "0::/")) {
  }
  if (!absl::StartsWith(line, "0::/")) return std::nullopt;
  std::ifstream events(hierarchy / line.substr(4) / "memory.events");
  std::string key;
  int64_t count = 0;
  while (events >> key >> count) {
    if (key == "oom_kill") return count;
  }
  return std::nullopt;
}

}  // namespace temper
