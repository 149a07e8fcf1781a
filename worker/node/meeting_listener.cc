// SPDX-License-Identifier: Apache-2.0
#include "worker/node/meeting_listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

absl::Status Failed(const std::string& host, const char* why) {
  return absl::UnavailableError(absl::StrCat(
      "can't listen on ", host, ": ", why, ": it must be an address of this host, at which the other nodes reach it"));
}

// Of either family.
uint16_t PortOf(const sockaddr_storage& address) {
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

}  // namespace

MeetingListener::~MeetingListener() {
  if (fd_ >= 0) close(fd_);
}

absl::Status MeetingListener::Listen(const std::string& host) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), "0", &hints, &found); error != 0) {
    return Failed(host, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  fd_ = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_storage bound = {};
  socklen_t size = sizeof bound;
  if (fd_ < 0 || bind(fd_, found->ai_addr, found->ai_addrlen) != 0 || listen(fd_, SOMAXCONN) != 0 ||
      getsockname(fd_, reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    return Failed(host, strerror(errno));
  }
  port_ = PortOf(bound);
  return absl::OkStatus();
}

}  // namespace temper
