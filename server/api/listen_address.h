// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace temper {

// HOST:PORT of a listening socket; a host that contains colons is written in brackets.
struct ListenAddress {
  std::string host;  // without brackets
  int port = 0;      // 0: any free one

  // INVALID_ARGUMENT with what is wrong.
  static absl::StatusOr<ListenAddress> Parse(std::string_view text);
  std::string Text() const;
  // Where a process on this host reaches it: a wildcard host becomes loopback.
  ListenAddress Reachable() const;
  // Whether only this host reaches it: the host name stands for addresses now, and every one is loopback.
  bool IsLoopback() const;
};

// "unix:PATH", as gRPC takes it: what is not plain in an address is percent-encoded. INVALID_ARGUMENT: the path is
// longer than the system has for sockets (107 bytes).
absl::StatusOr<std::string> UnixAddress(const std::filesystem::path& path);

// Why nothing can listen there, found out by trying: "Address already in use". OK when something could.
absl::Status CheckFree(const ListenAddress& address);

}  // namespace temper
