// SPDX-License-Identifier: Apache-2.0
#pragma once

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
  // Whether only this host reaches it: every address that the host name stands for is loopback. True of a name that
  // stands for none, where nothing can listen.
  bool IsLoopback() const;
};

// Why nothing can listen there, found out by trying: "Address already in use". OK when something could.
absl::Status CheckFree(const ListenAddress& address);

}  // namespace temper
