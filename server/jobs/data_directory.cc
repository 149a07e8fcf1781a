// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/data_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/private_directory.h"

namespace temper {
namespace {

absl::Status Unusable(const std::filesystem::path& path, int error) {
  const std::string message = absl::StrCat("can't use the data directory: ", path.string(), ": ", std::strerror(error));
  const bool denied = error == EACCES || error == EPERM || error == EROFS;
  return denied ? absl::PermissionDeniedError(message) : absl::UnavailableError(message);
}

absl::Status InUse(const std::filesystem::path& path, int lock) {
  char pid[32] = {};
  const ssize_t size = pread(lock, pid, sizeof(pid) - 1, 0);
  std::string holder = size > 0 ? std::string(pid, static_cast<size_t>(size)) : "";
  absl::StripAsciiWhitespace(&holder);
  if (holder.empty()) holder = "unknown";
  return absl::FailedPreconditionError(absl::StrCat("data directory ", path.string(),
                                                    " is in use by another temper-server (pid ", holder,
                                                    "): stop that one, or choose another --data-dir"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<DataDirectory>> DataDirectory::Hold(const std::filesystem::path& path) {
  if (const std::error_code error = MakePrivateDirectory(path)) return Unusable(path, error.value());
  const std::filesystem::path lock_path = path / "LOCK";
  const int lock = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0) return Unusable(lock_path, errno);
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    const absl::Status status = errno == EWOULDBLOCK ? InUse(path, lock) : Unusable(lock_path, errno);
    close(lock);
    return status;
  }
  // For people only: the lock is what counts.
  const std::string pid = absl::StrCat(getpid(), "\n");
  if (ftruncate(lock, 0) != 0 || pwrite(lock, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    const absl::Status status = Unusable(lock_path, errno);
    close(lock);
    return status;
  }
  return std::unique_ptr<DataDirectory>(new DataDirectory(lock));
}

DataDirectory::~DataDirectory() { close(lock_); }

}  // namespace temper
