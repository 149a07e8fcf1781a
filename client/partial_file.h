// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/digest.h"

namespace temper {

// A file that grows under the name PATH.part and takes its own name when it is whole. What a previous process wrote is
// kept and its digest computed. One thread.
class PartialFile {
 public:
  // Directories on the way are created. A partial file longer than `size` is begun anew.
  static absl::StatusOr<PartialFile> Open(const std::string& path, int64_t size);
  PartialFile(PartialFile&& other) noexcept;
  PartialFile& operator=(PartialFile&&) = delete;
  ~PartialFile();

  int64_t written() const { return written_; }
  // Of everything written so far.
  std::string Sha256() const { return digest_.Hex(); }

  absl::Status Write(std::string_view bytes);
  // Throws away what was written.
  absl::Status Restart();
  // Flushes to disk and renames.
  absl::Status Commit();

 private:
  PartialFile(std::string path, int descriptor);
  absl::Status Error(const char* what, int error_number) const;

  std::string path_;
  std::string partial_path_;
  int descriptor_;  // -1 once moved from or committed
  int64_t written_ = 0;
  temper::Sha256 digest_;
};

// The digest of a file that exists; NOT_FOUND when it does not.
absl::StatusOr<std::string> FileSha256(const std::string& path);

}  // namespace temper
