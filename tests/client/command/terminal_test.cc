// SPDX-License-Identifier: Apache-2.0
#include "client/command/terminal.h"

#include <gtest/gtest.h>

namespace temper::command {
namespace {

constexpr Terminal kTerminal{.interactive = true, .color = false};

std::string Written() { return testing::internal::GetCapturedStdout(); }

TEST(StatusArea, Lines_AreRedrawnInPlace) {
  testing::internal::CaptureStdout();
  StatusArea area(kTerminal);
  area.Draw({"a", "b", "c"});
  EXPECT_EQ(Written(), "\r\x1b[Ka\n\x1b[Kb\n\x1b[Kc");
  testing::internal::CaptureStdout();
  area.Draw({"d"});
  EXPECT_EQ(Written(), "\x1b[2A\r\x1b[Kd\x1b[J");
  testing::internal::CaptureStdout();
  area.Draw({"e"});
  EXPECT_EQ(Written(), "\r\x1b[Ke");
  testing::internal::CaptureStdout();
  area.Clear();
  EXPECT_EQ(Written(), "\r\x1b[K");
}

TEST(StatusArea, LineThatStays_GoesAboveThem) {
  testing::internal::CaptureStdout();
  StatusArea area(kTerminal);
  area.Draw({"a", "b"});
  area.Print("said");
  area.Clear();
  EXPECT_EQ(Written(),
            "\r\x1b[Ka\n\x1b[Kb"
            "\x1b[1A\r\x1b[Jsaid\n"
            "\r\x1b[Ka\n\x1b[Kb"
            "\x1b[1A\r\x1b[J");
}

TEST(StatusArea, NoTerminal_HasOnlyWhatStays) {
  testing::internal::CaptureStdout();
  const Terminal file;
  StatusArea area(file);
  area.Draw({"a", "b"});
  area.Print("said");
  area.Clear();
  EXPECT_EQ(Written(), "said\n");
}

}  // namespace
}  // namespace temper::command
