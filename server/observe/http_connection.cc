// SPDX-License-Identifier: Apache-2.0
#include "server/observe/http_connection.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace temper {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

using NameOfSocket = int (*)(int, sockaddr*, socklen_t*);

// Leaves both as they are where there is no such address.
void ReadAddress(int socket, NameOfSocket name_of, std::string& ip, int& port) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (name_of(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return;
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    ::inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    port = ntohs(v4.sin_port);
  } else if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    ::inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    port = ntohs(v6.sin6_port);
  }
  ip = text;
}

// Headers, for bodies are not read.
constexpr size_t kMaxRequestBytes = 1 << 16;

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

HttpConnection::HttpConnection(int socket, SSL_CTX* context, TimePoint deadline)
    : socket_(socket), tls_(context == nullptr ? nullptr : SSL_new(context), SSL_free), deadline_(deadline) {
  ::fcntl(socket_, F_SETFL, ::fcntl(socket_, F_GETFL) | O_NONBLOCK);
  if (tls_ != nullptr) SSL_set_fd(tls_.get(), socket_);
}

HttpConnection::~HttpConnection() {
  if (tls_ != nullptr && SSL_is_init_finished(tls_.get())) SSL_shutdown(tls_.get());  // without waiting for an answer
  ::shutdown(socket_, SHUT_RDWR);
  ::close(socket_);
}

bool HttpConnection::Accept() {
  if (tls_ == nullptr) return false;
  for (;;) {
    ERR_clear_error();  // what another call on this thread has left would count as of this one
    const int result = SSL_accept(tls_.get());
    if (result == 1) return true;
    if (!WaitForTls(result)) return false;
  }
}

bool HttpConnection::Wait(short events) const {
  for (;;) {
    const auto left = std::chrono::ceil<milliseconds>(deadline_ - steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd entry{socket_, events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(left.count()));
    if (ready > 0) return (entry.revents & (POLLERR | POLLHUP)) == 0;
    if (ready < 0 && errno != EINTR) return false;
  }
}

bool HttpConnection::IsOpen() const {
  pollfd entry{socket_, POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) <= 0;
}

bool HttpConnection::WaitForTls(int result) const {
  switch (SSL_get_error(tls_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return Wait(POLLIN);
    case SSL_ERROR_WANT_WRITE:
      return Wait(POLLOUT);
    default:
      return false;
  }
}

ssize_t HttpConnection::Receive(char* data, size_t size) {
  for (;;) {
    // Data that is there already does not extend the time either.
    if (steady_clock::now() >= deadline_) return -1;
    if (tls_ != nullptr) {
      ERR_clear_error();
      const int result = SSL_read(tls_.get(), data, static_cast<int>(size));
      if (result > 0) return result;
      if (SSL_get_error(tls_.get(), result) == SSL_ERROR_ZERO_RETURN) return 0;
      if (!WaitForTls(result)) return -1;
    } else {
      const ssize_t result = ::recv(socket_, data, size, 0);
      if (result >= 0) return result;
      if (!WouldBlock() || !Wait(POLLIN)) return -1;
    }
  }
}

ssize_t HttpConnection::read(char* data, size_t size) {
  if (unread_.empty()) {
    const ssize_t received = Receive(buffer_.data(), buffer_.size());
    if (received <= 0) return received;
    received_ += static_cast<size_t>(received);
    if (received_ > kMaxRequestBytes) return -1;
    unread_ = {buffer_.data(), static_cast<size_t>(received)};
  }
  const size_t count = std::min(size, unread_.size());
  std::memcpy(data, unread_.data(), count);
  unread_.remove_prefix(count);
  return static_cast<ssize_t>(count);
}

ssize_t HttpConnection::write(const char* data, size_t size) {
  constexpr size_t kMost = 1 << 20;  // TLS counts in int
  for (;;) {
    if (steady_clock::now() >= deadline_) return -1;
    if (tls_ != nullptr) {
      ERR_clear_error();
      const int result = SSL_write(tls_.get(), data, static_cast<int>(std::min(size, kMost)));
      if (result > 0) return result;
      if (!WaitForTls(result)) return -1;
    } else {
      const ssize_t result = ::send(socket_, data, size, MSG_NOSIGNAL);
      if (result >= 0) return result;
      if (!WouldBlock() || !Wait(POLLOUT)) return -1;
    }
  }
}

bool HttpConnection::is_readable() const { return !unread_.empty() || Wait(POLLIN); }
bool HttpConnection::is_writable() const { return Wait(POLLOUT); }

void HttpConnection::get_remote_ip_and_port(std::string& ip, int& port) const {
  ReadAddress(socket_, ::getpeername, ip, port);
}
void HttpConnection::get_local_ip_and_port(std::string& ip, int& port) const {
  ReadAddress(socket_, ::getsockname, ip, port);
}

}  // namespace temper
