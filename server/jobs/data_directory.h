// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"

namespace temper {

// The server's directory, held for one process: LOCK in it is locked while this lives, and names the holder's pid.
class DataDirectory {
 public:
  // Creates it (for this user alone) when missing.
  //
  // FAILED_PRECONDITION: another process holds it; the message names its pid. PERMISSION_DENIED, UNAVAILABLE: it can't
  // be used.
  static absl::StatusOr<std::unique_ptr<DataDirectory>> Hold(const std::filesystem::path& path);
  ~DataDirectory();
  DataDirectory(const DataDirectory&) = delete;
  DataDirectory& operator=(const DataDirectory&) = delete;

 private:
  explicit DataDirectory(int lock) : lock_(lock) {}

  const int lock_;
};

}  // namespace temper
