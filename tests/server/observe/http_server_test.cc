// SPDX-License-Identifier: Apache-2.0
#include "server/observe/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

namespace temper {
namespace {

HttpPages Pages(absl::Status health = absl::OkStatus()) {
  return {.metrics = [] { return "temper_up 1\n"; }, .health = [health] { return health; }};
}

TEST(HttpServer, Metrics_AreServedAsPrometheusText) {
  const auto server = HttpServer::Start("127.0.0.1", 0, Pages());
  ASSERT_TRUE(server.ok()) << server.status();
  const auto response = httplib::Client("127.0.0.1", (*server)->port()).Get("/metrics");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(response->body, "temper_up 1\n");
  EXPECT_EQ(response->get_header_value("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
}

TEST(HttpServer, Health_SaysWhyNot) {
  const auto well = HttpServer::Start("127.0.0.1", 0, Pages());
  ASSERT_TRUE(well.ok()) << well.status();
  EXPECT_EQ(httplib::Client("127.0.0.1", (*well)->port()).Get("/healthz")->status, 200);
  const auto ill = HttpServer::Start("127.0.0.1", 0, Pages(absl::UnavailableError("disk full")));
  ASSERT_TRUE(ill.ok()) << ill.status();
  const auto response = httplib::Client("127.0.0.1", (*ill)->port()).Get("/healthz");
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 503);
  EXPECT_EQ(response->body, "disk full\n");
}

TEST(HttpServer, OtherPath_IsNotFound) {
  const auto server = HttpServer::Start("127.0.0.1", 0, Pages());
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(httplib::Client("127.0.0.1", (*server)->port()).Get("/../etc/passwd")->status, 404);
}

TEST(HttpServer, PortIsTaken_SaysSo) {
  const auto first = HttpServer::Start("127.0.0.1", 0, Pages());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(absl::IsUnavailable(HttpServer::Start("127.0.0.1", (*first)->port(), Pages()).status()));
}

}  // namespace
}  // namespace temper
