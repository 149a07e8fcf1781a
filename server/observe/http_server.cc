// SPDX-License-Identifier: Apache-2.0
#include "server/observe/http_server.h"

#include <arpa/inet.h>
#include <httplib.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <semaphore>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/observe/byte_range.h"
#include "server/observe/http_connection.h"

namespace temper {
namespace {

// Bytes of a file that are read at a time, for a remote store takes a request for each; and that are sent at a time.
constexpr int64_t kReadSize = 4 << 20;
constexpr int64_t kSendSize = 64 << 10;

// Scripts, styles and data come from here alone, and nothing may frame a page.
constexpr const char* kContentPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

void Answer(int status, const std::string& text, httplib::Response& response) {
  response.status = status;
  response.set_content(text + "\n", "text/plain; charset=utf-8");
}

int HttpStatus(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kFailedPrecondition:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    default:
      return 503;
  }
}

// "localhost", of "localhost:8480"; "::1", of "[::1]:8480".
std::string HostName(std::string_view host) {
  if (host.starts_with('[')) return std::string(host.substr(1, host.find(']') - 1));
  return absl::AsciiStrToLower(std::string(host.substr(0, host.find(':'))));
}

bool IsLoopbackName(const std::string& name) {
  if (name == "localhost") return true;
  in_addr v4{};
  if (::inet_pton(AF_INET, name.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6{};
  return ::inet_pton(AF_INET6, name.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

bool IsSameOrigin(const std::string& origin, const std::string& host) {
  const size_t scheme = origin.find("://");
  return scheme != std::string::npos && absl::EqualsIgnoreCase(origin.substr(scheme + 3), host);
}

// As gRPC names the callers of its calls.
std::string PeerOf(const httplib::Request& request) {
  const bool v6 = request.remote_addr.find(':') != std::string::npos;
  return v6 ? absl::StrCat("ipv6:[", request.remote_addr, "]:", request.remote_port)
            : absl::StrCat("ipv4:", request.remote_addr, ":", request.remote_port);
}

// What this thread answers on.
thread_local HttpConnection* current_connection = nullptr;

// A stream or a file has its time for each piece, and not for all of them.
void BeginPiece(std::chrono::milliseconds limit) {
  current_connection->SetDeadline(std::chrono::steady_clock::now() + limit);
}

// A route, and what it takes to know a request as one of its own.
struct Route {
  HttpRoute route;
  std::string method;
  std::vector<std::string> parts;  // of the path
};

Route ParseRoute(HttpRoute route) {
  const std::vector<std::string> words = absl::StrSplit(route.name, ' ');
  return {.route = std::move(route), .method = words[0], .parts = absl::StrSplit(words[1].substr(1), '/')};
}

// What stands for the parts in braces; none: the path is not the route's.
std::optional<std::map<std::string, std::string>> Match(const Route& route, const std::string& path) {
  if (!path.starts_with('/')) return std::nullopt;
  std::map<std::string, std::string> found;
  std::string_view rest = std::string_view(path).substr(1);
  for (size_t i = 0; i < route.parts.size(); ++i) {
    std::string_view part = route.parts[i];
    const bool last = i + 1 == route.parts.size();
    if (last && part.ends_with("...}")) {
      found.emplace(part.substr(1, part.size() - 5), rest);
      return rest.empty() ? std::nullopt : std::optional(found);
    }
    const size_t slash = rest.find('/');
    if (last != (slash == std::string_view::npos)) return std::nullopt;
    const std::string_view name = rest.substr(0, slash);
    if (part.starts_with('{')) {
      if (name.empty()) return std::nullopt;
      found.emplace(part.substr(1, part.size() - 2), name);
    } else if (name != part) {
      return std::nullopt;
    }
    if (!last) rest.remove_prefix(slash + 1);
  }
  return found;
}

// Why the request is not answered, whatever it asks for; empty: nothing.
std::string WrongPlace(const HttpRules& rules, const httplib::Request& request) {
  const std::string host = request.get_header_value("Host");
  if (rules.loopback_names_only && !IsLoopbackName(HostName(host))) {
    return absl::StrCat("this server is not '", host, "': it listens on loopback, call it localhost");
  }
  if (request.has_header("Origin") && !IsSameOrigin(request.get_header_value("Origin"), host)) {
    return "pages of other origins may not read this";
  }
  // A page of another origin can ask for an image or a file without saying so in Origin, and hold a place of ours.
  const std::string site = request.get_header_value("Sec-Fetch-Site");
  if ((site == "cross-site" || site == "same-site") && request.get_header_value("Sec-Fetch-Mode") != "navigate") {
    return "pages of other origins may not ask for this";
  }
  return "";
}

constexpr const char* kTakesGzip = "Temper-Takes-Gzip";

// What the library would do to an answer, and is not to.
void Restrain(httplib::Request& request) {
  // It knows no If-Range, and takes a range for one that is there.
  request.ranges.clear();
  // It prefers brotli, at a quality that takes a second for a megabyte; and compresses assets again, which are
  // compressed.
  const bool takes_gzip = absl::StrContains(request.get_header_value("Accept-Encoding"), "gzip");
  request.headers.erase("Accept-Encoding");
  const bool is_asset = request.path == "/" || request.path.starts_with("/assets/");
  if (takes_gzip) request.headers.emplace(is_asset ? kTakesGzip : "Accept-Encoding", "gzip");
}

HttpRequest Described(const httplib::Request& request, Identity caller, std::map<std::string, std::string> path) {
  HttpRequest described{.caller = std::move(caller), .peer = PeerOf(request), .path = std::move(path)};
  for (const auto& [name, value] : request.params) described.query.emplace(name, value);
  described.last_event_id = request.get_header_value("Last-Event-ID");
  described.takes_gzip = request.has_header(kTakesGzip);
  return described;
}

// Some of a limited number of threads: one is taken until the last copy goes.
using Place = std::shared_ptr<void>;

class Places {
 public:
  explicit Places(int most) : left_(most) {}

  // Null: all are taken. `this` must outlive it.
  Place Take() {
    if (left_.fetch_sub(1) > 0) return {static_cast<void*>(this), [this](void*) { left_.fetch_add(1); }};
    left_.fetch_add(1);
    return nullptr;
  }

 private:
  std::atomic<int> left_;
};

void SetStream(HttpAnswer answer, Place place, std::chrono::milliseconds limit, httplib::Response& response) {
  const auto provider = [stream = std::move(answer.stream), place = std::move(place), limit](size_t,
                                                                                             httplib::DataSink& sink) {
    stream([&sink, limit](std::string_view bytes) {
      BeginPiece(limit);
      return bytes.empty() ? current_connection->IsOpen() : sink.write(bytes.data(), bytes.size());
    });
    sink.done();
    return true;
  };
  response.set_chunked_content_provider(answer.type, provider);
}

// A part of a file, on its way.
class FileSender {
 public:
  FileSender(HttpAnswer answer, ByteRange part, Place place, std::chrono::milliseconds limit)
      : read_(std::move(answer.read)), part_(part), place_(std::move(place)), limit_(limit) {}

  // What comes after `sent` bytes, or some of it. False: it can't be read, or taken.
  bool SendNext(size_t sent, httplib::DataSink& sink) {
    const auto done = static_cast<int64_t>(sent);
    if (unsent_.empty()) {
      auto bytes = read_(part_.offset + done, std::min(kReadSize, part_.length - done));
      if (!bytes.ok() || bytes->empty()) return false;
      bytes_ = *std::move(bytes);
      unsent_ = bytes_;
    }
    const std::string_view piece = unsent_.substr(0, kSendSize);
    unsent_.remove_prefix(piece.size());
    BeginPiece(limit_);
    if (!sink.write(piece.data(), piece.size())) return false;
    BeginPiece(limit_);  // the library asks whether the next one can be sent
    return true;
  }

 private:
  const std::function<absl::StatusOr<std::string>(int64_t offset, int64_t length)> read_;
  const ByteRange part_;
  const Place place_;
  const std::chrono::milliseconds limit_;
  std::string bytes_;
  std::string_view unsent_;  // of bytes_
};

void SetFile(HttpAnswer answer, const httplib::Request& request, Place place, std::chrono::milliseconds limit,
             httplib::Response& response) {
  response.set_header("Accept-Ranges", "bytes");
  if (!answer.etag.empty()) response.set_header("ETag", answer.etag);
  const bool has_the_rest = !request.has_header("If-Range") || request.get_header_value("If-Range") == answer.etag;
  const auto range = ParseByteRange(has_the_rest ? request.get_header_value("Range") : "", answer.size);
  if (!range.ok()) {
    response.set_header("Content-Range", absl::StrCat("bytes */", answer.size));
    return Answer(416, std::string(range.status().message()), response);
  }
  const ByteRange part = range->value_or(ByteRange{.offset = 0, .length = answer.size});
  if (range->has_value()) {
    response.status = 206;
    response.set_header("Content-Range",
                        absl::StrCat("bytes ", part.offset, "-", part.offset + part.length - 1, "/", answer.size));
  }
  const std::string type = answer.type;
  const auto sender = std::make_shared<FileSender>(std::move(answer), part, std::move(place), limit);
  response.set_content_provider(
      static_cast<size_t>(part.length), type,
      [sender](size_t sent, size_t, httplib::DataSink& sink) { return sender->SendNext(sent, sink); });
}

// All that there is to answer with.
class Site {
 public:
  Site(std::vector<HttpRoute> routes, HttpRules rules, const HttpLimits& limits)
      : rules_(std::move(rules)), limits_(limits), streams_(limits.streams), files_(limits.files) {
    for (HttpRoute& route : routes) routes_.push_back(ParseRoute(std::move(route)));
  }

  void Serve(const httplib::Request& request, httplib::Response& response) {
    response.set_header("Content-Security-Policy", kContentPolicy);
    response.set_header("X-Content-Type-Options", "nosniff");
    response.set_header("X-Frame-Options", "DENY");
    response.set_header("Referrer-Policy", "no-referrer");
    response.set_header("Cross-Origin-Resource-Policy", "same-origin");
    if (const std::string wrong = WrongPlace(rules_, request); !wrong.empty()) return Answer(403, wrong, response);
    const std::string method = request.method == "HEAD" ? "GET" : request.method;
    for (const Route& route : routes_) {
      if (route.method != method) continue;
      if (auto path = Match(route, request.path)) return Serve(route, *std::move(path), request, response);
    }
    const auto name = [](std::string* text, const Route& route) { text->append(route.route.name); };
    Answer(404, absl::StrCat("there is nothing here but ", absl::StrJoin(routes_, ", ", name)), response);
  }

 private:
  void Serve(const Route& route, std::map<std::string, std::string> path, const httplib::Request& request,
             httplib::Response& response) {
    const auto job = path.find("job");
    auto caller = rules_.admit(route.route.name, job == path.end() ? "" : absl::StrCat("jobs/", job->second),
                               request.get_header_value("Authorization"), PeerOf(request));
    if (!caller.ok()) {
      if (absl::IsUnauthenticated(caller.status())) response.set_header("WWW-Authenticate", "Bearer");
      return Set(HttpError(caller.status()), request, response);
    }
    Set(route.route.answer(Described(request, *std::move(caller), std::move(path))), request, response);
  }

  void Set(HttpAnswer answer, const httplib::Request& request, httplib::Response& response) {
    response.status = answer.status;
    for (const auto& [name, value] : answer.headers) response.set_header(name, value);
    if (!response.has_header("Cache-Control")) response.set_header("Cache-Control", "no-store");
    // For a file of no bytes the library would ask for ever.
    if (answer.read != nullptr && answer.size == 0) return response.set_content("", answer.type);
    if (!answer.stream && answer.read == nullptr) return response.set_content(answer.body, answer.type);
    Place place = answer.stream ? streams_.Take() : files_.Take();
    if (place == nullptr) {
      response.set_header("Retry-After", "5");
      return Answer(503, "too many are served already; try again later", response);
    }
    answer.stream ? SetStream(std::move(answer), std::move(place), limits_.response, response)
                  : SetFile(std::move(answer), request, std::move(place), limits_.file_piece, response);
  }

  const HttpRules rules_;
  const HttpLimits limits_;
  std::vector<Route> routes_;
  Places streams_;
  Places files_;
};

HttpAnswer HealthAnswer(const absl::Status& health, bool has_reason) {
  if (health.ok()) return {.type = "text/plain; charset=utf-8", .body = "ok\n"};
  return HttpError(absl::UnavailableError(has_reason ? health.message() : "the server can't do its work"));
}

// Of each connection: it begins with the newest sound pair.
int UseNewest(SSL* connection, void* certificates) {
  const std::shared_ptr<SSL_CTX> newest = static_cast<const CertificateWatcher*>(certificates)->context();
  return SSL_set_SSL_CTX(connection, newest.get()) == nullptr ? 0 : 1;  // the connection shares it
}

SSL_CTX* ContextOf(const httplib::Server&) { return nullptr; }
SSL_CTX* ContextOf(const httplib::SSLServer& server) { return server.ssl_context(); }

// httplib's server, whose connections are ours: one request each, in limited time.
template <typename Base>
class Limited final : public Base {
 public:
  template <typename... Arguments>
  explicit Limited(HttpLimits limits, Arguments&&... arguments)
      : Base(std::forward<Arguments>(arguments)...), limits_(limits) {}

 private:
  bool process_and_close_socket(socket_t socket) override {
    using std::chrono::steady_clock;
    SSL_CTX* const context = ContextOf(static_cast<const Base&>(*this));
    HttpConnection connection(socket, context, steady_clock::now() + limits_.request);
    if (context != nullptr && !connection.Accept()) return false;
    current_connection = &connection;
    bool is_closed = false;
    // What a refused request carries is not read: it must not become the next request of its connection.
    return this->process_request(connection, /*close_connection=*/true, is_closed, [&](httplib::Request& request) {
      Restrain(request);
      connection.SetDeadline(steady_clock::now() + limits_.response);  // its headers are there
    });
  }

  const HttpLimits limits_;
};

// Threads for connections. Those that no thread is free for are few: they hold descriptors that others need.
class BoundedPool final : public httplib::TaskQueue {
 public:
  explicit BoundedPool(int threads) : pool_(static_cast<size_t>(threads)) {}

  void enqueue(std::function<void()> task) override {
    waiting_.acquire();
    pool_.enqueue([this, task = std::move(task)] {
      waiting_.release();
      task();
    });
  }
  void shutdown() override { pool_.shutdown(); }

 private:
  std::counting_semaphore<> waiting_{64};
  httplib::ThreadPool pool_;
};

std::unique_ptr<httplib::Server> MakeServer(const CertificateWatcher* certificates, HttpLimits limits) {
  if (certificates == nullptr) return std::make_unique<Limited<httplib::Server>>(limits);
  return std::make_unique<Limited<httplib::SSLServer>>(limits, [certificates](SSL_CTX& context) {
    // Every connection shows its certificates: what was resumed would go by those of an older one.
    SSL_CTX_set_options(&context, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(&context, 0);
    SSL_CTX_set_session_cache_mode(&context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_cert_cb(&context, UseNewest, const_cast<CertificateWatcher*>(certificates));
    const int verify = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    if (!certificates->copies().client_ca.empty()) SSL_CTX_set_verify(&context, verify, nullptr);
    return SSL_CTX_set_min_proto_version(&context, TLS1_2_VERSION) == 1;
  });
}

}  // namespace

std::string HttpRequest::Query(const std::string& name) const {
  const auto found = query.find(name);
  return found == query.end() ? "" : found->second;
}

HttpAnswer HttpError(const absl::Status& status) {
  return {
      .status = HttpStatus(status), .type = "text/plain; charset=utf-8", .body = absl::StrCat(status.message(), "\n")};
}

HttpServer::HttpServer(const CertificateWatcher* certificates, HttpLimits limits)
    : server_(MakeServer(certificates, limits)) {}

HttpServer::~HttpServer() {
  if (stop_streams_) stop_streams_();
  server_->stop();
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& host, int port, HttpPages pages,
                                                              HttpRules rules, const CertificateWatcher* certificates,
                                                              HttpLimits limits) {
  auto server = std::unique_ptr<HttpServer>(new HttpServer(certificates, limits));
  httplib::Server& http = *server->server_;
  std::vector<HttpRoute> routes = std::move(pages.routes);
  if (pages.metrics) {
    routes.push_back({"GET /metrics", [metrics = std::move(pages.metrics)](const HttpRequest&) {
                        return HttpAnswer{.type = "text/plain; version=0.0.4; charset=utf-8", .body = metrics()};
                      }});
  }
  routes.push_back({"GET /healthz", [health = std::move(pages.health), has_reason = rules.health_has_reason](
                                        const HttpRequest&) { return HealthAnswer(health(), has_reason); }});
  server->stop_streams_ = std::move(pages.stop);
  const int threads = limits.threads + limits.streams + limits.files;
  http.new_task_queue = [threads] { return new BoundedPool(threads); };  // httplib deletes it
  http.set_pre_routing_handler([site = std::make_shared<Site>(std::move(routes), std::move(rules), limits)](
                                   const httplib::Request& request, httplib::Response& response) {
    site->Serve(request, response);
    return httplib::Server::HandlerResponse::Handled;
  });
  // The library's default has SO_REUSEPORT, with which a second server starts on the same port.
  http.set_socket_options([](int fd) {
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  });
  server->port_ = port == 0 ? http.bind_to_any_port(host.c_str()) : (http.bind_to_port(host.c_str(), port) ? port : -1);
  if (server->port_ <= 0) return absl::UnavailableError(absl::StrCat("can't listen on ", host, ":", port));
  server->thread_ = std::thread([&http] { http.listen_after_bind(); });
  // stop() before the loop runs would be forgotten.
  while (!http.is_running()) std::this_thread::yield();
  return server;
}

}  // namespace temper
