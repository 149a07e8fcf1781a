// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace temper {

// How many processes of this process's cgroup (version 2) the kernel has killed for want of memory so far; nothing
// where that can't be told. The arguments are for tests.
std::optional<int64_t> OomKills(const std::filesystem::path& own_cgroup = "/proc/self/cgroup",
                                const std::filesystem::path& hierarchy = "/sys/fs/cgroup");

}  // namespace temper
