// SPDX-License-Identifier: Apache-2.0
#include "common/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

namespace temper {
namespace {

TEST(LogTest, Lines_HaveOneFormat) {
  testing::internal::CaptureStderr();
  ASSERT_TRUE(SetUpLog("temper-test", "info").ok());
  spdlog::info("hello {}", 1);
  spdlog::debug("not this");
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::MatchesRegex("[0-9-]+T[0-9:.]+Z info  temper-test: hello 1\n"));
}

TEST(LogTest, UnknownLevel_IsRefused) {
  EXPECT_EQ(SetUpLog("temper-test", "verbose").message(),
            "log level 'verbose' is none of trace, debug, info, warn, error, off");
  EXPECT_TRUE(SetUpLog("temper-test", "off").ok());
}

}  // namespace
}  // namespace temper
