// SPDX-License-Identifier: Apache-2.0
#include "server/observe/http_server.h"

#include <arpa/inet.h>
#include <httplib.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <semaphore>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/observe/http_connection.h"

namespace temper {
namespace {

constexpr std::array<std::string_view, 2> kPaths = {"/metrics", "/healthz"};

void Answer(int status, const std::string& text, httplib::Response& response) {
  response.status = status;
  response.set_content(text + "\n", "text/plain; charset=utf-8");
}

int HttpStatus(const absl::Status& status) {
  if (absl::IsUnauthenticated(status)) return 401;
  if (absl::IsResourceExhausted(status)) return 429;
  return absl::IsPermissionDenied(status) ? 403 : 503;
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

// False: `response` says why the request is not answered.
bool Passes(const HttpRules& rules, const httplib::Request& request, httplib::Response& response) {
  const std::string host = request.get_header_value("Host");
  if (rules.loopback_names_only && !IsLoopbackName(HostName(host))) {
    Answer(403, absl::StrCat("this server is not '", host, "': it listens on loopback, call it localhost"), response);
    return false;
  }
  if (request.has_header("Origin") && !IsSameOrigin(request.get_header_value("Origin"), host)) {
    Answer(403, "pages of other origins may not read this", response);
    return false;
  }
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (!reads || std::find(kPaths.begin(), kPaths.end(), request.path) == kPaths.end()) {
    Answer(404, "there is nothing here but GET /metrics and GET /healthz", response);
    return false;
  }
  const absl::Status status =
      rules.admit("GET " + request.path, request.get_header_value("Authorization"), PeerOf(request));
  if (status.ok()) return true;
  if (absl::IsUnauthenticated(status)) response.set_header("WWW-Authenticate", "Bearer");
  Answer(HttpStatus(status), std::string(status.message()), response);
  return false;
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
    bool is_closed = false;
    // What a refused request carries is not read: it must not become the next request of its connection.
    return this->process_request(connection, /*close_connection=*/true, is_closed, [&](httplib::Request&) {
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

HttpServer::HttpServer(const CertificateWatcher* certificates, HttpLimits limits)
    : server_(MakeServer(certificates, limits)) {}

HttpServer::~HttpServer() {
  server_->stop();
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& host, int port, HttpPages pages,
                                                              HttpRules rules, const CertificateWatcher* certificates,
                                                              HttpLimits limits) {
  auto server = std::unique_ptr<HttpServer>(new HttpServer(certificates, limits));
  httplib::Server& http = *server->server_;
  const bool health_has_reason = rules.health_has_reason;
  http.Get("/metrics", [metrics = std::move(pages.metrics)](const httplib::Request&, httplib::Response& response) {
    response.set_content(metrics(), "text/plain; version=0.0.4; charset=utf-8");
  });
  http.Get("/healthz",
           [health = std::move(pages.health), health_has_reason](const httplib::Request&, httplib::Response& response) {
             const absl::Status status = health();
             if (status.ok()) return Answer(200, "ok", response);
             Answer(503, health_has_reason ? std::string(status.message()) : "the server can't do its work", response);
           });
  http.set_pre_routing_handler(
      [rules = std::move(rules)](const httplib::Request& request, httplib::Response& response) {
        return Passes(rules, request, response) ? httplib::Server::HandlerResponse::Unhandled
                                                : httplib::Server::HandlerResponse::Handled;
      });
  // The library's default has SO_REUSEPORT, with which a second server starts on the same port.
  http.set_socket_options([](int fd) {
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  });
  http.new_task_queue = [threads = limits.threads] { return new BoundedPool(threads); };  // httplib deletes it

  server->port_ = port == 0 ? http.bind_to_any_port(host.c_str()) : (http.bind_to_port(host.c_str(), port) ? port : -1);
  if (server->port_ <= 0) return absl::UnavailableError(absl::StrCat("can't listen on ", host, ":", port));
  server->thread_ = std::thread([&http] { http.listen_after_bind(); });
  // stop() before the loop runs would be forgotten.
  while (!http.is_running()) std::this_thread::yield();
  return server;
}

}  // namespace temper
