// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

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

// Plain HTTP for machines: GET /metrics and /healthz (200 "ok", or 503 with the reason). Nothing else.
class HttpServer {
 public:
  // Port 0 is any free one. `pages` is called by several threads.
  //
  // UNAVAILABLE: nothing can listen there.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& host, int port, HttpPages pages);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const { return port_; }

 private:
  HttpServer();

  std::unique_ptr<httplib::Server> server_;
  int port_ = 0;
  std::thread thread_;
};

}  // namespace temper
