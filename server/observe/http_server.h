// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/auth/certificate_watcher.h"

namespace httplib {
class Server;
}

namespace temper {

struct HttpPages {
  // The page for Prometheus, in its text format 0.0.4.
  std::function<std::string()> metrics;
  // OK, or why the server can't do its work.
  std::function<absl::Status()> health;
};

// Who may ask.
struct HttpRules {
  // Whether "GET /metrics" may be called with this value of the header `authorization` (empty: it is not there) by
  // `peer` ("ipv4:10.0.0.7:51234").
  std::function<absl::Status(std::string_view route, std::string_view authorization, std::string_view peer)> admit;
  // Only those who call this server by a name of this host's loopback: a page that a browser on this host shows can't
  // read it by pointing a name of its own here ("DNS rebinding").
  bool loopback_names_only = false;
  // /healthz says why not.
  bool health_has_reason = false;
};

// How much of the server its callers may take.
struct HttpLimits {
  int threads = 32;  // connections that are served at a time; another 64 wait in the server, and the rest in the kernel
  std::chrono::milliseconds request{5'000};    // for a request to be there, the handshake of TLS included
  std::chrono::milliseconds response{10'000};  // for it to be answered, and the answer taken
};

// HTTP for machines, over TLS where there are certificates: GET /metrics and /healthz (200 "ok", or 503). Anything else
// is answered with a list of these, and pages of other origins (header `Origin`) are refused.
class HttpServer {
 public:
  // Port 0 is any free one. `pages` and `rules` are called by several threads. `certificates`: null: plain text; they
  // must outlive the server.
  //
  // UNAVAILABLE: nothing can listen there.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& host, int port, HttpPages pages,
                                                           HttpRules rules,
                                                           const CertificateWatcher* certificates = nullptr,
                                                           HttpLimits limits = {});
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const { return port_; }

 private:
  HttpServer(const CertificateWatcher* certificates, HttpLimits limits);

  std::unique_ptr<httplib::Server> server_;
  int port_ = 0;
  std::thread thread_;
};

}  // namespace temper
