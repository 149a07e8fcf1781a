// SPDX-License-Identifier: Apache-2.0
#include "server/api/listen_address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace temper {

absl::StatusOr<ListenAddress> ListenAddress::Parse(std::string_view text) {
  ListenAddress address;
  const size_t colon = text.rfind(':');
  if (colon != std::string_view::npos) {
    address.host = text.substr(0, colon);
    const bool bracketed = address.host.size() > 2 && address.host.front() == '[' && address.host.back() == ']';
    if (bracketed) address.host = address.host.substr(1, address.host.size() - 2);
    const bool whole =
        !address.host.empty() && address.host.find_first_of(bracketed ? "[]" : "[]:") == std::string::npos;
    if (whole && absl::SimpleAtoi(std::string(text.substr(colon + 1)), &address.port) && address.port >= 0 &&
        address.port <= 65535) {
      return address;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "'", std::string(text), "' is no address: write HOST:PORT, for example 127.0.0.1:8470 or [::1]:8470"));
}

std::string ListenAddress::Text() const {
  return host.find(':') == std::string::npos ? absl::StrCat(host, ":", port) : absl::StrCat("[", host, "]:", port);
}

ListenAddress ListenAddress::Reachable() const {
  if (host == "0.0.0.0") return {"127.0.0.1", port};
  if (host == "::") return {"::1", port};
  return *this;
}

bool ListenAddress::IsLoopback() const {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return false;
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    if (one->ai_family == AF_INET) {
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(one->ai_addr);
      if (ntohl(v4->sin_addr.s_addr) >> 24 != 127) return false;
    } else if (one->ai_family != AF_INET6 ||
               !IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(one->ai_addr)->sin6_addr)) {
      return false;
    }
  }
  return true;
}

absl::StatusOr<std::string> UnixAddress(const std::filesystem::path& path) {
  constexpr size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;
  if (path.string().size() > kMaxPath) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": too long for a socket, whose path has at most ", kMaxPath, " bytes"));
  }
  std::string text = "unix:";
  for (const char c : path.string()) {
    const bool plain = absl::ascii_isalnum(static_cast<unsigned char>(c)) || std::strchr("/-._~", c) != nullptr;
    absl::StrAppend(&text, plain ? std::string(1, c)
                                 : absl::StrCat("%", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2)));
  }
  return text;
}

absl::Status CheckFree(const ListenAddress& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
      error != 0) {
    return absl::InvalidArgumentError(absl::StrCat(address.Text(), ": ", ::gai_strerror(error)));
  }
  absl::Status status;
  const int fd = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  // As the servers do: a port whose last connections are still in TIME_WAIT is free.
  if (fd >= 0) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (fd < 0 || ::bind(fd, found->ai_addr, found->ai_addrlen) != 0 || ::listen(fd, 1) != 0) {
    const int error = errno;
    const std::string text = absl::StrCat(address.Text(), ": ", std::strerror(error));
    status = error == EADDRINUSE ? absl::AlreadyExistsError(text) : absl::UnavailableError(text);
  }
  if (fd >= 0) ::close(fd);
  ::freeaddrinfo(found);
  return status;
}

}  // namespace temper
