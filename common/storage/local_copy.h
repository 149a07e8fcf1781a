// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace temper {

// A stored directory as files on this machine, for readers that know of nothing else: where it is, or, of a remote
// store, a copy below the system's temporary directory (TMPDIR) that goes away with this object.
class LocalCopy {
 public:
  LocalCopy() = default;  // of nothing
  // Errors as ObjectStore has them; RESOURCE_EXHAUSTED when there is no space for the copy.
  static absl::StatusOr<LocalCopy> Of(std::string_view uri);
  LocalCopy(LocalCopy&& other) noexcept;
  LocalCopy& operator=(LocalCopy&& other) noexcept;
  ~LocalCopy();

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool copied_ = false;
};

}  // namespace temper
