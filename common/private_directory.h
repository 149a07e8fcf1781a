// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <system_error>

namespace temper {

// Creates a directory, for this user alone, and those above it, as the umask has it. One that is there already stays as
// whoever made it wanted it.
inline std::error_code MakePrivateDirectory(const std::filesystem::path& path) {
  std::error_code error;
  const bool created = std::filesystem::create_directories(path, error);
  if (created && !error) std::filesystem::permissions(path, std::filesystem::perms::owner_all, error);
  return error;
}

}  // namespace temper
