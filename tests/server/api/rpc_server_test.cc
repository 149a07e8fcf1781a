// SPDX-License-Identifier: Apache-2.0
#include "server/api/rpc_server.h"

#include <gmock/gmock.h>

#include "tests/server/api/api_fixture.h"

namespace temper {
namespace {

using testing::HasSubstr;

class RpcServerTest : public ApiTest {};

TEST_F(RpcServerTest, PortIsTaken_SaysSo) {
  const auto second = RpcServer::Start({.address = server->address()}, *controller, *hub, *uploads, authenticator,
                                       [](std::string_view, const absl::Status&) {});
  EXPECT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(server->address().Text() + ": Address already in use"));
}

TEST_F(RpcServerTest, AddressOfAnotherHost_SaysSo) {
  const auto other = RpcServer::Start({.address = {"192.0.2.1", 0}}, *controller, *hub, *uploads, authenticator,
                                      [](std::string_view, const absl::Status&) {});
  EXPECT_TRUE(absl::IsUnavailable(other.status())) << other.status();
}

TEST(ListenAddress, HostAndPort_AreRead) {
  const auto address = ListenAddress::Parse("127.0.0.1:8470");
  ASSERT_TRUE(address.ok()) << address.status();
  EXPECT_EQ(address->host, "127.0.0.1");
  EXPECT_EQ(address->port, 8470);
  EXPECT_EQ(address->Text(), "127.0.0.1:8470");
  const auto v6 = ListenAddress::Parse("[::1]:0");
  ASSERT_TRUE(v6.ok()) << v6.status();
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->Text(), "[::1]:0");
}

TEST(ListenAddress, Nonsense_IsRefused) {
  for (const char* text :
       {"", "8470", "host", "host:", ":8470", "host:70000", "host:-1", "host:x", "::1:8470", "[]:1"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ListenAddress::Parse(text).status())) << text;
  }
}

TEST(ListenAddress, Wildcard_IsReachedOverLoopback) {
  EXPECT_EQ(ListenAddress({"0.0.0.0", 1}).Reachable().Text(), "127.0.0.1:1");
  EXPECT_EQ(ListenAddress({"::", 1}).Reachable().Text(), "[::1]:1");
  EXPECT_EQ(ListenAddress({"10.0.0.1", 1}).Reachable().Text(), "10.0.0.1:1");
}

TEST(ListenAddress, Loopback_IsWhatOnlyThisHostReaches) {
  for (const char* host : {"127.0.0.1", "127.9.9.9", "::1", "localhost"}) {
    EXPECT_TRUE(ListenAddress({host, 1}).IsLoopback()) << host;
  }
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "192.0.2.1", "fe80::1", "::ffff:10.0.0.1"}) {
    EXPECT_FALSE(ListenAddress({host, 1}).IsLoopback()) << host;
  }
}

}  // namespace
}  // namespace temper
