// SPDX-License-Identifier: Apache-2.0
#include "server/observe/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "server/auth/certificate_watcher.h"
#include "tests/common/scratch_directory.h"
#include "tests/server/auth/test_certificate.h"

namespace temper {
namespace {

HttpPages Pages(absl::Status health = absl::OkStatus()) {
  return {.metrics = [] { return "temper_up 1\n"; }, .health = [health] { return health; }};
}

HttpRules Open() {
  return {.admit = [](std::string_view, std::string_view, std::string_view, std::string_view) { return Identity(); },
          .health_has_reason = true};
}

TEST(HttpServer, Metrics_AreServedAsPrometheusText) {
  const auto server = HttpServer::Start("127.0.0.1", 0, Pages(), Open());
  ASSERT_TRUE(server.ok()) << server.status();
  const auto response = httplib::Client("127.0.0.1", (*server)->port()).Get("/metrics");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->body, "temper_up 1\n");
  EXPECT_EQ(response->get_header_value("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
}

TEST(HttpServer, Health_SaysWhyNot) {
  const auto well = HttpServer::Start("127.0.0.1", 0, Pages(), Open());
  ASSERT_TRUE(well.ok()) << well.status();
  EXPECT_EQ(httplib::Client("127.0.0.1", (*well)->port()).Get("/healthz")->status, 200);
  const auto ill = HttpServer::Start("127.0.0.1", 0, Pages(absl::UnavailableError("disk full")), Open());
  ASSERT_TRUE(ill.ok()) << ill.status();
  const auto response = httplib::Client("127.0.0.1", (*ill)->port()).Get("/healthz");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 503);
  EXPECT_EQ(response->body, "disk full\n");
}

TEST(HttpServer, OtherPath_IsNotFound) {
  const auto server = HttpServer::Start("127.0.0.1", 0, Pages(), Open());
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(httplib::Client("127.0.0.1", (*server)->port()).Get("/../etc/passwd")->status, 404);
}

TEST(HttpServer, Loopback_OtherNamesAndOrigins_AreRefused) {
  HttpRules rules = Open();
  rules.loopback_names_only = true;
  const auto server = HttpServer::Start("127.0.0.1", 0, Pages(), rules);
  ASSERT_TRUE(server.ok()) << server.status();
  httplib::Client client("127.0.0.1", (*server)->port());
  for (const char* host : {"localhost", "LOCALHOST:1", "127.0.0.1:8480", "127.1.2.3", "[::1]:8480", "[::1]"}) {
    EXPECT_EQ(client.Get("/metrics", {{"Host", host}})->status, 200) << host;
  }
  for (const char* host : {"", "evil.example", "evil.example:8480", "localhost.evil.example", "127.0.0.1.evil.example",
                           "10.0.0.1", "[::2]", "[", "127.1"}) {
    EXPECT_EQ(client.Get("/metrics", {{"Host", host}})->status, 403) << host;
  }
  const auto from = [&](const char* origin) {
    return client.Get("/metrics", {{"Host", "localhost:1"}, {"Origin", origin}})->status;
  };
  EXPECT_EQ(from("http://localhost:1"), 200);
  for (const char* origin : {"http://localhost:2", "http://evil.example", "null"}) EXPECT_EQ(from(origin), 403);
  // What a page of another origin asks for as an image; and a link that a user follows.
  const auto fetched = [&](const char* site, const char* mode) {
    return client.Get("/metrics", {{"Host", "localhost:1"}, {"Sec-Fetch-Site", site}, {"Sec-Fetch-Mode", mode}})
        ->status;
  };
  EXPECT_EQ(fetched("cross-site", "no-cors"), 403);
  EXPECT_EQ(fetched("same-site", "no-cors"), 403);
  EXPECT_EQ(fetched("cross-site", "navigate"), 200);
  EXPECT_EQ(fetched("same-origin", "cors"), 200);
}

// A socket that is connected to the server on this host.
int Connect(int port, int receive_buffer = 0) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  if (receive_buffer > 0) ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  return fd;
}

// All that the server answers to these bytes, until it closes.
std::string AnswerTo(int port, const std::string& bytes) {
  const int fd = Connect(port);
  std::string answer;
  if (::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size())) {
    char buffer[4096];
    for (ssize_t size = 0; (size = ::recv(fd, buffer, sizeof buffer, 0)) > 0;)
      answer.append(buffer, static_cast<size_t>(size));
  }
  ::close(fd);
  return answer;
}

TEST(HttpServer, BodyOfARefusedRequest_IsNoRequest) {
  HttpRules rules = Open();
  rules.loopback_names_only = true;
  const auto server = HttpServer::Start("127.0.0.1", 0, Pages(), rules);
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string body = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const std::string answer =
      AnswerTo((*server)->port(), "POST /metrics HTTP/1.1\r\nHost: evil.example\r\nContent-Length: " +
                                      std::to_string(body.size()) + "\r\n\r\n" + body);
  EXPECT_THAT(answer, testing::StartsWith("HTTP/1.1 403"));
  EXPECT_THAT(answer, testing::Not(testing::HasSubstr("temper_up")));
}

TEST(HttpServer, Route_IsAdmittedByItsAuthorization) {
  HttpRules rules;
  rules.admit = [](std::string_view route, std::string_view job, std::string_view authorization,
                   std::string_view peer) -> absl::StatusOr<Identity> {
    EXPECT_TRUE(peer.starts_with("ipv4:127.0.0.1:")) << peer;
    EXPECT_EQ(job, "");
    if (route == "GET /healthz" || authorization == "Bearer right") return Identity();
    if (authorization == "Bearer often") return absl::ResourceExhaustedError("too often");
    if (authorization == "Bearer low") return absl::PermissionDeniedError("low");
    return absl::UnauthenticatedError("who?");
  };
  const auto server = HttpServer::Start("127.0.0.1", 0, Pages(absl::UnavailableError("/secret/path")), rules);
  ASSERT_TRUE(server.ok()) << server.status();
  httplib::Client client("127.0.0.1", (*server)->port());
  const auto unknown = client.Get("/metrics");
  EXPECT_EQ(unknown->status, 401);
  EXPECT_EQ(unknown->get_header_value("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(unknown->body, "who?\n");
  EXPECT_EQ(client.Get("/metrics", {{"Authorization", "Bearer low"}})->status, 403);
  EXPECT_EQ(client.Get("/metrics", {{"Authorization", "Bearer often"}})->status, 429);
  EXPECT_EQ(client.Get("/metrics", {{"Authorization", "Bearer right"}})->status, 200);
  EXPECT_EQ(client.Head("/metrics")->status, 401);
  const auto health = client.Get("/healthz");
  EXPECT_EQ(health->status, 503);
  EXPECT_EQ(health->body, "the server can't do its work\n");
}

TEST(HttpServer, Route_GetsWhatItsPathNames) {
  HttpPages pages = Pages();
  const auto tell = [](const HttpRequest& request) {
    return HttpAnswer{.body = request.path.at("job") + "|" + request.path.at("file") + "|" + request.Query("from")};
  };
  pages.routes = {{"GET /jobs/{job}/files/{file...}", tell},
                  {"GET /", [](const HttpRequest&) { return HttpAnswer(); }}};
  HttpRules rules = Open();
  std::string asked;
  rules.admit = [&](std::string_view route, std::string_view job, std::string_view, std::string_view) {
    asked = std::string(route) + " " + std::string(job);
    return Identity();
  };
  const auto server = HttpServer::Start("127.0.0.1", 0, std::move(pages), rules);
  ASSERT_TRUE(server.ok()) << server.status();
  httplib::Client client("127.0.0.1", (*server)->port());
  EXPECT_EQ(client.Get("/jobs/a%20b/files/x/y.txt?from=7")->body, "a b|x/y.txt|7");
  EXPECT_EQ(asked, "GET /jobs/{job}/files/{file...} jobs/a b");
  EXPECT_EQ(client.Get("/")->status, 200);
  for (const char* path : {"/jobs", "/jobs/a/files/", "/jobs//files/x", "/jobs/a", "//", "/jobs/a/other/x"}) {
    EXPECT_EQ(client.Get(path)->status, 404) << path;
  }
  EXPECT_EQ(client.Post("/")->status, 404);
}

TEST(HttpServer, EveryAnswer_TellsTheBrowserToTrustNobodyElse) {
  const auto server = HttpServer::Start("127.0.0.1", 0, Pages(), Open());
  ASSERT_TRUE(server.ok()) << server.status();
  httplib::Client client("127.0.0.1", (*server)->port());
  for (const char* path : {"/metrics", "/none"}) {
    const auto answer = client.Get(path);
    EXPECT_THAT(answer->get_header_value("Content-Security-Policy"), testing::HasSubstr("default-src 'none'"));
    EXPECT_EQ(answer->get_header_value("X-Content-Type-Options"), "nosniff");
    EXPECT_EQ(answer->get_header_value("X-Frame-Options"), "DENY");
  }
}

TEST(HttpServer, Streams_LeaveRoomForOthers) {
  std::mutex mutex;
  std::condition_variable changed;
  int open = 0;
  bool stopping = false;
  HttpPages pages = Pages();
  pages.routes = {{"GET /stream", [&](const HttpRequest&) {
                     return HttpAnswer{.type = "text/event-stream", .stream = [&](const HttpWrite& write) {
                                         write("data: 1\n\n");
                                         std::unique_lock lock(mutex);
                                         ++open;
                                         changed.notify_all();
                                         changed.wait(lock, [&] { return stopping; });
                                       }};
                   }}};
  pages.stop = [&] {
    std::lock_guard lock(mutex);
    stopping = true;
    changed.notify_all();
  };
  const HttpLimits limits{.threads = 2, .streams = 12};
  auto server = HttpServer::Start("127.0.0.1", 0, std::move(pages), Open(), nullptr, limits);
  ASSERT_TRUE(server.ok()) << server.status();
  const int port = (*server)->port();
  std::vector<std::thread> readers;
  for (int i = 0; i < limits.streams; ++i) {
    readers.emplace_back([port] { EXPECT_EQ(httplib::Client("127.0.0.1", port).Get("/stream")->status, 200); });
  }
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return open == limits.streams; });
  }
  httplib::Client client("127.0.0.1", port);
  const auto refused = client.Get("/stream");
  EXPECT_EQ(refused->status, 503);
  EXPECT_EQ(refused->get_header_value("Retry-After"), "5");
  EXPECT_EQ(client.Get("/healthz")->status, 200);
  EXPECT_EQ(client.Get("/metrics")->status, 200);
  server->reset();  // ends the streams
  for (std::thread& reader : readers) reader.join();
}

TEST(HttpServer, Stream_HasItsTimeForEachPiece) {
  HttpPages pages = Pages();
  pages.routes = {{"GET /stream", [](const HttpRequest&) {
                     return HttpAnswer{.type = "text/event-stream", .stream = [](const HttpWrite& write) {
                                         for (int i = 0; i < 5 && write("data: 1\n\n"); ++i) {
                                           std::this_thread::sleep_for(std::chrono::milliseconds(30));
                                         }
                                       }};
                   }}};
  const HttpLimits limits{.response = std::chrono::milliseconds(50)};  // less than all of them take
  const auto server = HttpServer::Start("127.0.0.1", 0, std::move(pages), Open(), nullptr, limits);
  ASSERT_TRUE(server.ok()) << server.status();
  const auto answer = httplib::Client("127.0.0.1", (*server)->port()).Get("/stream");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->body.size(), 5 * 9);
}

TEST(HttpServer, Stream_OfAClientThatHasGone_Ends) {
  std::promise<void> over;
  HttpPages pages = Pages();
  pages.routes = {{"GET /stream", [&](const HttpRequest&) {
                     return HttpAnswer{.type = "text/event-stream", .stream = [&](const HttpWrite& write) {
                                         while (write("")) std::this_thread::yield();  // without a byte
                                         over.set_value();
                                       }};
                   }}};
  const auto server = HttpServer::Start("127.0.0.1", 0, std::move(pages), Open());
  ASSERT_TRUE(server.ok()) << server.status();
  const int fd = Connect((*server)->port());
  constexpr std::string_view kRequest = "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
  ASSERT_EQ(::send(fd, kRequest.data(), kRequest.size(), MSG_NOSIGNAL), static_cast<ssize_t>(kRequest.size()));
  char byte = 0;
  ASSERT_EQ(::recv(fd, &byte, 1, 0), 1);  // it has begun
  ::close(fd);
  EXPECT_EQ(over.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

// A route with these bytes as a file.
HttpRoute FileRoute(const std::string& content) {
  return {"GET /file", [content](const HttpRequest&) {
            return HttpAnswer{.type = "application/octet-stream",
                              .size = static_cast<int64_t>(content.size()),
                              .etag = "\"one\"",
                              .read = [content](int64_t offset, int64_t length) -> absl::StatusOr<std::string> {
                                return content.substr(static_cast<size_t>(offset), static_cast<size_t>(length));
                              }};
          }};
}

TEST(HttpServer, File_IsSentInParts) {
  const std::string content = "0123456789";
  HttpPages pages = Pages();
  pages.routes = {FileRoute(content)};
  const auto server = HttpServer::Start("127.0.0.1", 0, std::move(pages), Open());
  ASSERT_TRUE(server.ok()) << server.status();
  httplib::Client client("127.0.0.1", (*server)->port());
  const auto whole = client.Get("/file");
  EXPECT_EQ(whole->status, 200);
  EXPECT_EQ(whole->body, content);
  EXPECT_EQ(whole->get_header_value("Accept-Ranges"), "bytes");
  EXPECT_EQ(whole->get_header_value("ETag"), "\"one\"");
  const auto part = client.Get("/file", {{"Range", "bytes=4-"}, {"If-Range", "\"one\""}});
  EXPECT_EQ(part->status, 206);
  EXPECT_EQ(part->body, "456789");
  EXPECT_EQ(part->get_header_value("Content-Range"), "bytes 4-9/10");
  const auto of_another = client.Get("/file", {{"Range", "bytes=4-"}, {"If-Range", "\"two\""}});
  EXPECT_EQ(of_another->status, 200);
  EXPECT_EQ(of_another->body, content);
  const auto parts = client.Get("/file", {{"Range", "bytes=0-,1-,2-"}});  // which together are more than there is
  EXPECT_EQ(parts->status, 200);
  EXPECT_EQ(parts->body, content);
  const auto none = client.Get("/file", {{"Range", "bytes=10-"}});  // who has all of it asks so
  EXPECT_EQ(none->status, 416);
  EXPECT_EQ(none->get_header_value("Content-Range"), "bytes */10");
  EXPECT_EQ(client.Head("/file")->get_header_value("Content-Length"), "10");
}

TEST(HttpServer, File_TakesAsLongAsItsClient) {
  using std::chrono::steady_clock;
  constexpr double kBytesPerSecond = 3.5e6;
  const std::string content(8 << 20, 'x');
  HttpPages pages = Pages();
  pages.routes = {FileRoute(content)};
  // At that pace four megabytes take twice as long, and what a socket wants free before it takes more less than half.
  const HttpLimits limits{.file_piece = std::chrono::milliseconds(600)};
  const auto server = HttpServer::Start("127.0.0.1", 0, std::move(pages), Open(), nullptr, limits);
  ASSERT_TRUE(server.ok()) << server.status();
  const int fd = Connect((*server)->port(), /*receive_buffer=*/64 << 10);
  constexpr std::string_view kRequest = "GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n";
  ASSERT_EQ(::send(fd, kRequest.data(), kRequest.size(), MSG_NOSIGNAL), static_cast<ssize_t>(kRequest.size()));
  const auto begin = steady_clock::now();
  std::vector<char> buffer(64 << 10);
  double received = 0;
  for (ssize_t size = 0; (size = ::recv(fd, buffer.data(), buffer.size(), 0)) > 0;) {
    received += static_cast<double>(size);
    std::this_thread::sleep_until(begin + std::chrono::duration<double>(received / kBytesPerSecond));
  }
  ::close(fd);
  EXPECT_GT(received, static_cast<double>(content.size()));  // its headers, too
}

TEST(HttpServer, EmptyFile_Ends) {
  HttpPages pages = Pages();
  const auto read = [](int64_t, int64_t) -> absl::StatusOr<std::string> { return std::string(); };
  pages.routes = {
      {"GET /file", [=](const HttpRequest&) { return HttpAnswer{.type = "text/plain", .size = 0, .read = read}; }}};
  const auto server = HttpServer::Start("127.0.0.1", 0, std::move(pages), Open());
  ASSERT_TRUE(server.ok()) << server.status();
  const auto answer = httplib::Client("127.0.0.1", (*server)->port()).Get("/file");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->body, "");
}

TEST(HttpServer, AnswersAreCompressedWithGzipAtMost) {
  HttpPages pages = Pages();
  pages.routes = {{"GET /long", [](const HttpRequest&) { return HttpAnswer{.body = std::string(10'000, 'x')}; }}};
  const auto server = HttpServer::Start("127.0.0.1", 0, std::move(pages), Open());
  ASSERT_TRUE(server.ok()) << server.status();
  httplib::Client client("127.0.0.1", (*server)->port());
  client.set_decompress(false);
  const auto encoding = [&](const char* accepted) {
    return client.Get("/long", {{"Accept-Encoding", accepted}})->get_header_value("Content-Encoding");
  };
  EXPECT_EQ(encoding("gzip, deflate, br, zstd"), "gzip");
  EXPECT_EQ(encoding("br"), "");
}

// Connections that send a byte of a request now and then, or nothing at all, until the server has had enough.
class SlowClients {
 public:
  SlowClients(int port, int count, std::string_view request) : request_(request) {
    for (int i = 0; i < count; ++i) connections_.push_back(Connect(port));
    thread_ = std::thread([this] { Trickle(); });
  }
  // Waits until all of them are closed by the server.
  ~SlowClients() {
    thread_.join();
    for (const int fd : connections_) ::close(fd);
  }

 private:
  void Trickle() {
    std::vector<int> open = connections_;
    for (size_t sent = 0; !open.empty(); ++sent) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      std::erase_if(open, [&](int fd) {
        char byte = 0;
        if (sent < request_.size()) ::send(fd, &request_[sent], 1, MSG_NOSIGNAL);
        const ssize_t received = ::recv(fd, &byte, 1, MSG_DONTWAIT);
        return received == 0 || (received < 0 && errno != EAGAIN);
      });
    }
  }

  const std::string_view request_;
  std::vector<int> connections_;
  std::thread thread_;
};

constexpr std::string_view kEndlessRequest =
    "GET /metrics HTTP/1.1\r\nX-Long: ........................................................................"
    "................................................................................................................";

TEST(HttpServer, ClientsThatAreSlow_HoldNobodyUp) {
  constexpr HttpLimits kLimits = {
      .threads = 2, .request = std::chrono::milliseconds(200), .response = std::chrono::milliseconds(200)};
  const auto server = HttpServer::Start("127.0.0.1", 0, Pages(), Open(), nullptr, kLimits);
  ASSERT_TRUE(server.ok()) << server.status();
  for (const std::string_view request : {kEndlessRequest, std::string_view()}) {
    const SlowClients clients((*server)->port(), 5, request);
    const auto response = httplib::Client("127.0.0.1", (*server)->port()).Get("/healthz");
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 200);
  }
}

TEST(HttpServer, ClientThatDoesNotRead_HoldsNobodyUp) {
  constexpr HttpLimits kLimits = {
      .threads = 1, .request = std::chrono::seconds(5), .response = std::chrono::milliseconds(200)};
  HttpPages pages = Pages();
  pages.metrics = [] { return std::string(64 << 20, 'x'); };
  const auto server = HttpServer::Start("127.0.0.1", 0, pages, Open(), nullptr, kLimits);
  ASSERT_TRUE(server.ok()) << server.status();
  const int fd = Connect((*server)->port());
  constexpr std::string_view kRequest = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
  ASSERT_EQ(::send(fd, kRequest.data(), kRequest.size(), MSG_NOSIGNAL), static_cast<ssize_t>(kRequest.size()));
  const auto response = httplib::Client("127.0.0.1", (*server)->port()).Get("/healthz");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  ::close(fd);
}

TEST(HttpServer, HeadersWithoutEnd_AreNotTaken) {
  const auto server = HttpServer::Start("127.0.0.1", 0, Pages(), Open());
  ASSERT_TRUE(server.ok()) << server.status();
  const int fd = Connect((*server)->port());
  ASSERT_GT(::send(fd, "GET /metrics HTTP/1.1\r\n", 23, MSG_NOSIGNAL), 0);
  const std::string header = "X-A: " + std::string(4000, 'b') + "\r\n";
  constexpr size_t kMoreThanSocketsHold = 16 << 20;
  size_t sent = 0;
  while (sent < kMoreThanSocketsHold && ::send(fd, header.data(), header.size(), MSG_NOSIGNAL) > 0) {
    sent += header.size();
  }
  EXPECT_LT(sent, kMoreThanSocketsHold);
  ::close(fd);
}

TEST(HttpServer, Tls_IsServedAndLimitedInTheSameWay) {
  const ScratchDirectory scratch;
  MakeCertificate(scratch.path(), "server");
  const auto certificates =
      CertificateWatcher::Start({scratch.path() / "server.crt", scratch.path() / "server.key", ""},
                                scratch.path() / "copies", std::chrono::seconds(60), [](const absl::Status&) {});
  ASSERT_TRUE(certificates.ok()) << certificates.status();
  constexpr HttpLimits kLimits = {
      .threads = 2, .request = std::chrono::milliseconds(1000), .response = std::chrono::seconds(10)};
  HttpPages pages = Pages();
  pages.metrics = [] { return std::string(5 << 20, 'x'); };
  const auto server = HttpServer::Start("127.0.0.1", 0, pages, Open(), certificates->get(), kLimits);
  ASSERT_TRUE(server.ok()) << server.status();
  const SlowClients clients((*server)->port(), 3, "\x16\x03\x01\x02");  // of a handshake
  httplib::SSLClient client("127.0.0.1", (*server)->port());
  client.enable_server_certificate_verification(false);
  const auto response = client.Get("/metrics");
  ASSERT_TRUE(response) << httplib::to_string(response.error());
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->body.size(), size_t{5} << 20);
}

TEST(HttpServer, PortIsTaken_SaysSo) {
  const auto first = HttpServer::Start("127.0.0.1", 0, Pages(), Open());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(absl::IsUnavailable(HttpServer::Start("127.0.0.1", (*first)->port(), Pages(), Open()).status()));
}

}  // namespace
}  // namespace temper
