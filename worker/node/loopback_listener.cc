// SPDX-License-Identifier: Apache-2.0
#include "worker/node/loopback_listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace temper {

LoopbackListener::~LoopbackListener() {
  if (fd_ >= 0) close(fd_);
}

absl::Status LoopbackListener::Listen() {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd_ < 0 || bind(fd_, any, size) != 0 || listen(fd_, SOMAXCONN) != 0 || getsockname(fd_, any, &size) != 0) {
    return absl::InternalError(absl::StrCat("can't listen on the loopback interface: ", strerror(errno)));
  }
  port_ = ntohs(address.sin_port);
  return absl::OkStatus();
}

}  // namespace temper
