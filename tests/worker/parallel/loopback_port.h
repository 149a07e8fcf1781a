// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace temper {

// A port of this host that nobody else gets: rank 0's store takes the socket over.
struct LoopbackPort {
  int listen_fd = -1;
  uint16_t port = 0;
};

inline LoopbackPort ListenOnLoopback() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof(address);
  if (bind(fd, generic, size) != 0 || listen(fd, SOMAXCONN) != 0 || getsockname(fd, generic, &size) != 0) {
    std::perror("a port on loopback");
    std::abort();
  }
  return {fd, ntohs(address.sin_port)};
}

}  // namespace temper
