// SPDX-License-Identifier: Apache-2.0
#include "worker/node/exit_record.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"

namespace temper {
namespace {

std::string ToJson(const ExitRecord& record) {
  std::string cause;
  if (record.cause != v1::FAILURE_CAUSE_UNSPECIFIED) {
    const std::string name = v1::FailureCause_Name(record.cause);
    cause = std::string(absl::StripPrefix(name, "FAILURE_CAUSE_"));
  }
  const nlohmann::ordered_json json = {
      {"exit_status", static_cast<int>(record.exit)}, {"cause", cause}, {"message", record.message}};
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

absl::Status Failed(const std::filesystem::path& path) {
  return absl::InternalError(absl::StrCat("can't write ", path.string(), ": ", strerror(errno)));
}

}  // namespace

absl::Status WriteExitRecord(const std::filesystem::path& run_dir, const ExitRecord& record) {
  const std::filesystem::path path = run_dir / "exit.json";
  const std::filesystem::path temporary = run_dir / "exit.json.tmp";
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return Failed(temporary);
  const std::string json = ToJson(record);
  const bool written = write(fd, json.data(), json.size()) == static_cast<ssize_t>(json.size()) && fsync(fd) == 0;
  if (close(fd) != 0 || !written) return Failed(temporary);
  if (rename(temporary.c_str(), path.c_str()) != 0) return Failed(path);
  return absl::OkStatus();
}

}  // namespace temper
