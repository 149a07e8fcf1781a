// SPDX-License-Identifier: Apache-2.0
#include "client/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

class ClientConfigTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& text, const std::string& name = "config.yaml") {
    const std::string path = (directory_.path() / name).string();
    std::ofstream(path) << text;
    return path;
  }

  ScratchDirectory directory_;
};

TEST_F(ClientConfigTest, Read_TokenFile_IsMeantRelativeToTheConfig) {
  Write("secret\n", "token");
  const auto config = ReadClientConfig(Write("server: host:1\ntoken_file: token\n"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->server, "host:1");
  EXPECT_EQ(config->token, "secret");
  EXPECT_EQ(ReadClientConfig(Write("token: inline\n"))->token, "inline");
}

TEST_F(ClientConfigTest, Read_TlsFiles_AreMeantRelativeToTheConfig) {
  const auto config = ReadClientConfig(Write("ca_file: ca.pem\ncert_file: /etc/temper/me.pem\nkey_file: me.key\n"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->tls.ca_file, (directory_.path() / "ca.pem").string());
  EXPECT_EQ(config->tls.certificate_file, "/etc/temper/me.pem");
  EXPECT_EQ(config->tls.key_file, (directory_.path() / "me.key").string());
  EXPECT_EQ(ReadClientConfig(Write("token: a\n"))->tls.ca_file, "");
}

TEST_F(ClientConfigTest, Read_Insecure_IsTrueOrFalse) {
  EXPECT_TRUE(ReadClientConfig(Write("insecure: true\n"))->insecure);
  EXPECT_FALSE(ReadClientConfig(Write("insecure: false\n"))->insecure);
  EXPECT_FALSE(ReadClientConfig(Write("token: a\n"))->insecure);
  EXPECT_THAT(std::string(ReadClientConfig(Write("insecure: please\n")).status().message()),
              testing::HasSubstr("config.yaml:1: insecure must be true or false"));
}

TEST(Channel, TokenOverPlainText_StaysOnThisHost) {
  for (const char* address : {"127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/temper.sock", "https://host:1"}) {
    EXPECT_TRUE(CheckTokenIsPrivate(address, {}).ok()) << address;
  }
  for (const char* address : {"host:1", "10.0.0.1:1", "127.evil.example:1", "localhost.evil.example:1", "[::2]:1"}) {
    EXPECT_TRUE(absl::IsFailedPrecondition(CheckTokenIsPrivate(address, {}))) << address;
    EXPECT_TRUE(CheckTokenIsPrivate(address, {.ca_file = "ca.pem"}).ok()) << address;
  }
}

TEST_F(ClientConfigTest, Read_NothingWrittenDown_IsEmpty) {
  EXPECT_EQ(ReadClientConfig("/nonexistent/config.yaml")->server, "");
  EXPECT_EQ(ReadClientConfig("")->server, "");
  EXPECT_EQ(ReadClientConfig(Write("# server: a\n"))->server, "");
}

TEST_F(ClientConfigTest, Read_WhatIsWrong_IsSaidWithItsLine) {
  const auto problem = [this](const std::string& text) {
    return std::string(ReadClientConfig(Write(text)).status().message());
  };
  EXPECT_THAT(problem("token: a\nservr: b\n"), testing::HasSubstr("config.yaml:2: unknown key 'servr'; did you mean"));
  EXPECT_THAT(problem("colour: b\n"), testing::HasSubstr("possible are server, token, token_file, ca_file"));
  EXPECT_THAT(problem("server: [a]\n"), testing::HasSubstr("config.yaml:1: server must be a text"));
  EXPECT_THAT(problem("- a\n"), testing::HasSubstr("expected `server: HOST:PORT`"));
  EXPECT_THAT(problem("server: [\n"), testing::HasSubstr("is not valid YAML"));
  EXPECT_THAT(problem("token: a\ntoken_file: b\n"), testing::HasSubstr("remove one of them"));
  EXPECT_THAT(problem("token_file: nowhere\n"), testing::HasSubstr("token_file: cannot read"));
}

TEST_F(ClientConfigTest, Path_FollowsTheEnvironment) {
  ::setenv("XDG_CONFIG_HOME", "/x", 1);
  EXPECT_EQ(ClientConfigPath(), "/x/temper/config.yaml");
  ::unsetenv("XDG_CONFIG_HOME");
  ::setenv("HOME", "/home/ana", 1);
  EXPECT_EQ(ClientConfigPath(), "/home/ana/.config/temper/config.yaml");
}

}  // namespace
}  // namespace temper
