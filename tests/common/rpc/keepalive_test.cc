// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/keepalive.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "temper/v1/training_service.grpc.pb.h"

namespace temper {
namespace {

using std::chrono::milliseconds;

static_assert(Keepalive().shortest_ping < Keepalive().client_ping);

constexpr Keepalive kOften = {.client_ping = milliseconds(50),
                              .server_ping = milliseconds(50),
                              .answer = milliseconds(2'000),
                              .shortest_ping = milliseconds(20)};
constexpr milliseconds kIdle(4'000);  // some pings: gRPC sends one a second at most
constexpr std::chrono::seconds kLimit(30);

// Sends an event; then nothing for a while, and another one: or, for the job "forever", nothing any more.
class IdleService : public v1::TrainingService::Service {
 public:
  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::JobEvent>* writer) override {
    writer->Write({});
    if (request->name() == "forever") {
      while (!context->IsCancelled()) std::this_thread::sleep_for(milliseconds(10));
      gone_.set_value();
      return grpc::Status::CANCELLED;
    }
    std::this_thread::sleep_for(kIdle);
    writer->Write({});
    return grpc::Status::OK;
  }

  // When the client of the job "forever" is gone.
  std::future<void> gone() { return gone_.get_future(); }

 private:
  std::promise<void> gone_;
};

struct Server {
  explicit Server(std::optional<Keepalive> keepalive = kOften) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    if (keepalive) SetServerKeepalive(*keepalive, builder);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 1);  // not patient with pings that come too often
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
  }
  ~Server() { server->Shutdown(std::chrono::system_clock::now()); }
  std::string address() const { return "127.0.0.1:" + std::to_string(port); }

  int port = 0;
  IdleService service;
  std::unique_ptr<grpc::Server> server;
};

class Watch {
 public:
  Watch(const std::string& address, const std::string& job) {
    grpc::ChannelArguments arguments;
    SetClientKeepalive(kOften, arguments);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ =
        v1::TrainingService::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
    context_.set_deadline(std::chrono::system_clock::now() + kLimit);
    v1::WatchJobRequest request;
    request.set_name(job);
    reader_ = stub_->WatchJob(&context_, request);
  }
  bool Read() {
    v1::JobEvent event;
    return reader_->Read(&event);
  }
  grpc::Status Finish() { return reader_->Finish(); }

 private:
  std::unique_ptr<v1::TrainingService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::JobEvent>> reader_;
};

// This program again, with other arguments (see main): a process that can be stopped in its tracks. Its system still
// answers TCP then.
class Other {
 public:
  Other(const char* role, const std::string& address = "") {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      ::execl("/proc/self/exe", "keepalive_test", role, address.c_str(), nullptr);
      ::_exit(1);
    }
    ::close(ends[1]);
    out_ = ::fdopen(ends[0], "r");
  }
  ~Other() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    std::fclose(out_);
  }
  // What it prints; it has begun then.
  std::string Line() {
    char line[64] = "";
    EXPECT_NE(std::fgets(line, sizeof line, out_), nullptr);
    return std::string(line, std::string_view(line).find('\n'));
  }
  void Stop() { ::kill(pid_, SIGSTOP); }

 private:
  pid_t pid_ = 0;
  std::FILE* out_ = nullptr;
};

TEST(Keepalive, IdleStream_GoesOn) {
  const Server server;
  Watch watch(server.address(), "idle");
  EXPECT_TRUE(watch.Read());
  EXPECT_TRUE(watch.Read());
  EXPECT_FALSE(watch.Read());
  EXPECT_TRUE(watch.Finish().ok());
}

TEST(Keepalive, ServerThatAllowsNoPings_CutsIt) {
  const Server server(std::nullopt);
  Watch watch(server.address(), "idle");
  EXPECT_TRUE(watch.Read());
  EXPECT_FALSE(watch.Read());
  EXPECT_EQ(watch.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(Keepalive, ServerThatStops_IsMissed) {
  Other server("serve");
  Watch watch(server.Line(), "forever");
  EXPECT_TRUE(watch.Read());
  server.Stop();
  EXPECT_FALSE(watch.Read());
  EXPECT_EQ(watch.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(Keepalive, ClientThatStops_IsMissed) {
  Server server;
  std::future<void> gone = server.service.gone();
  Other client("watch", server.address());
  EXPECT_EQ(client.Line(), "watching");
  client.Stop();
  EXPECT_EQ(gone.wait_for(kLimit), std::future_status::ready);
}

// The others' main functions; they end by being killed.

int Serve() {
  const Server server;
  std::printf("%s\n", server.address().c_str());
  std::fflush(stdout);
  server.server->Wait();
  return 0;
}

int WatchForever(const char* address) {
  Watch watch(address, "forever");
  if (!watch.Read()) return 1;
  std::puts("watching");
  std::fflush(stdout);
  return watch.Read() ? 0 : 1;
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  const std::string role = argc > 1 ? argv[1] : "";
  if (role == "serve") return temper::Serve();
  if (role == "watch") return temper::WatchForever(argv[2]);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
