// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <httplib.h>
#include <openssl/ssl.h>

#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>

namespace temper {

// One connection of the HTTP server, in plain text or over TLS, which ends at a point in time, and after so many bytes,
// whatever its client does: httplib's own streams give a client so long for each byte. One thread at a time.
class HttpConnection final : public httplib::Stream {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // Takes `socket`, which it closes in the end. `context` null: plain text.
  HttpConnection(int socket, SSL_CTX* context, TimePoint deadline);
  ~HttpConnection() override;
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  // The handshake of TLS. False: there is nobody to talk to.
  bool Accept();

  // From now on.
  void SetDeadline(TimePoint deadline) { deadline_ = deadline; }

  // Whether the client is there, as far as is known at this moment. One that has closed its side takes no more.
  bool IsOpen() const;

  // httplib::Stream. Bytes that were read or written; 0 at the end, -1 for an error, when time is over or when the
  // client has sent more than any request has.
  ssize_t read(char* data, size_t size) override;
  ssize_t write(const char* data, size_t size) override;
  using httplib::Stream::write;
  bool is_readable() const override;
  bool is_writable() const override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return socket_; }

 private:
  // Waits until the socket is ready for `events` of poll(2). False: time is over, or the client has gone.
  bool Wait(short events) const;
  // What kept `result`, an SSL call's, from success: waits for that. False: it was something else, or time is over.
  bool WaitForTls(int result) const;
  ssize_t Receive(char* data, size_t size);

  const int socket_;
  const std::unique_ptr<SSL, void (*)(SSL*)> tls_;
  TimePoint deadline_;
  size_t received_ = 0;
  // httplib asks for single bytes.
  std::array<char, 4096> buffer_;
  std::string_view unread_;  // in buffer_
};

}  // namespace temper
