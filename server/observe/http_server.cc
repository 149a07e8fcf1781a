// SPDX-License-Identifier: Apache-2.0
#include "server/observe/http_server.h"

#include <httplib.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace temper {

HttpServer::HttpServer() : server_(std::make_unique<httplib::Server>()) {}

HttpServer::~HttpServer() {
  server_->stop();
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& host, int port, HttpPages pages) {
  auto server = std::unique_ptr<HttpServer>(new HttpServer);
  httplib::Server& http = *server->server_;
  http.Get("/metrics", [metrics = std::move(pages.metrics)](const httplib::Request&, httplib::Response& response) {
    response.set_content(metrics(), "text/plain; version=0.0.4; charset=utf-8");
  });
  http.Get("/healthz", [health = std::move(pages.health)](const httplib::Request&, httplib::Response& response) {
    const absl::Status status = health();
    response.status = status.ok() ? 200 : 503;
    response.set_content(status.ok() ? "ok\n" : absl::StrCat(status.message(), "\n"), "text/plain; charset=utf-8");
  });
  // The library's default has SO_REUSEPORT, with which a second server starts on the same port.
  http.set_socket_options([](int fd) {
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  });
  // Its threads are few: nobody may hold one for long.
  http.set_read_timeout(5);
  http.set_write_timeout(5);
  http.set_keep_alive_timeout(5);
  http.set_payload_max_length(1 << 16);

  server->port_ = port == 0 ? http.bind_to_any_port(host.c_str()) : (http.bind_to_port(host.c_str(), port) ? port : -1);
  if (server->port_ <= 0) return absl::UnavailableError(absl::StrCat("can't listen on ", host, ":", port));
  server->thread_ = std::thread([&http] { http.listen_after_bind(); });
  // stop() before the loop runs would be forgotten.
  while (!http.is_running()) std::this_thread::yield();
  return server;
}

}  // namespace temper
