// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/auth/certificate_watcher.h"
#include "server/auth/role.h"

namespace httplib {
class Server;
}

namespace temper {

// What a handler knows of a request that was let through.
struct HttpRequest {
  Identity caller;
  std::string peer;  // "ipv4:10.0.0.7:51234"
  // What stands for the parts in braces of the route, decoded.
  std::map<std::string, std::string> path;
  // The first value of each; empty where it is missing.
  std::map<std::string, std::string> query;
  std::string last_event_id;
  bool takes_gzip = false;

  std::string Query(const std::string& name) const;
};

// False: the client has gone, or is too slow.
using HttpWrite = std::function<bool(std::string_view bytes)>;

struct HttpAnswer {
  int status = 200;
  std::string type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  // Instead of a body: writes for as long as it likes, as when events are followed. It must end soon when
  // `HttpRoutes::stop` was called, and write something now and then to learn that the client has gone.
  std::function<void(const HttpWrite& write)> stream;
  // Instead of a body: a file of `size` bytes, of which a client may ask for a part. `etag`, with its quotation marks,
  // is that of these bytes: a client that has some of them takes the rest only when it is the same.
  int64_t size = 0;
  std::string etag;
  std::function<absl::StatusOr<std::string>(int64_t offset, int64_t length)> read;
};

// OK is no answer. The text is what the status says.
HttpAnswer HttpError(const absl::Status& status);

// "GET /api/v1/jobs/{job}", as the table of server/auth/route_rules.h has it: a part in braces stands for any name, one
// with dots at its end ("{path...}") for all that follows.
struct HttpRoute {
  std::string name;
  std::function<HttpAnswer(const HttpRequest&)> answer;
};

struct HttpPages {
  // The page for Prometheus, in its text format 0.0.4. Empty: there is none.
  std::function<std::string()> metrics;
  // OK, or why the server can't do its work.
  std::function<absl::Status()> health;
  // What there is besides.
  std::vector<HttpRoute> routes;
  // Ends the streams of `routes`. May be empty.
  std::function<void()> stop;
};

// Who may ask.
struct HttpRules {
  // Who asks, if "GET /metrics" may be asked for with this value of the header `authorization` (empty: it is not there)
  // by `peer`. `job`: what stands for {job} in the route.
  std::function<absl::StatusOr<Identity>(std::string_view route, std::string_view job, std::string_view authorization,
                                         std::string_view peer)>
      admit;
  // Only those who call this server by a name of this host's loopback: a page that a browser on this host shows can't
  // read it by pointing a name of its own here ("DNS rebinding").
  bool loopback_names_only = false;
  // /healthz says why not.
  bool health_has_reason = false;
};

// How much of the server its callers may take.
struct HttpLimits {
  int threads = 32;  // connections that are served at a time; another 64 wait in the server, and the rest in the kernel
  // Streams and files that are on their way at a time; what is asked for beyond that gets 503. They have threads of
  // their own, besides those: however many there are, other requests are answered.
  int streams = 64;
  int files = 16;
  std::chrono::milliseconds request{5'000};  // for a request to be there, the handshake of TLS included
  // For it to be answered, and the answer taken; of a stream, each piece of it.
  std::chrono::milliseconds response{10'000};
  // Of a file, for each 64 KiB to be taken. Sockets say that they take more when a third of what they hold has gone,
  // which may be a megabyte: so a client has its file at 0.3 Mbit/s.
  std::chrono::milliseconds file_piece{30'000};
};

// HTTP, over TLS where there are certificates: GET /healthz (200 "ok", or 503) and /metrics, and the routes that it is
// given. Pages of other origins (header `Origin`) are refused, and no answer may be shown inside of another page, or be
// taken for something that it is not.
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
  std::function<void()> stop_streams_;
  int port_ = 0;
  std::thread thread_;
};

}  // namespace temper
