// SPDX-License-Identifier: Apache-2.0
#include "common/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

namespace temper {
namespace {

TEST(LogTest, Text_HasOneForm) {
  testing::internal::CaptureStderr();
  ASSERT_TRUE(SetUpLog("temper-test", "info", "text").ok());
  spdlog::info("hello {}", 1);
  spdlog::debug("not this");
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::MatchesRegex("[0-9-]+T[0-9:.]+Z info  temper-test: hello 1\n"));
}

TEST(LogTest, Json_IsAnObjectALine) {
  testing::internal::CaptureStderr();
  ASSERT_TRUE(SetUpLog("temper-test", "info", "json").ok());
  spdlog::warn("jobs/a-b: said \"two\nlines\" and \xff");
  spdlog::info("no job: here");
  std::istringstream lines(testing::internal::GetCapturedStderr());
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  auto json = nlohmann::json::parse(line);
  EXPECT_THAT(json["time"].get<std::string>(), testing::MatchesRegex("[0-9-]+T[0-9:.]+Z"));
  EXPECT_EQ(json["level"], "warning");
  EXPECT_EQ(json["program"], "temper-test");
  EXPECT_EQ(json["job"], "jobs/a-b");
  EXPECT_EQ(json["message"], "said \"two\nlines\" and \uFFFD");
  ASSERT_TRUE(std::getline(lines, line));
  json = nlohmann::json::parse(line);
  EXPECT_EQ(json["message"], "no job: here");
  EXPECT_FALSE(json.contains("job"));
}

TEST(LogTest, UnknownLevelOrFormat_IsRefused) {
  EXPECT_EQ(SetUpLog("temper-test", "verbose", "text").message(),
            "log level 'verbose' is none of trace, debug, info, warn, error, off");
  EXPECT_EQ(SetUpLog("temper-test", "info", "xml").message(), "log format 'xml' is neither text nor json");
  EXPECT_TRUE(SetUpLog("temper-test", "off", "text").ok());
}

}  // namespace
}  // namespace temper
