// SPDX-License-Identifier: Apache-2.0
#include "worker/session/utf8.h"

#include "gtest/gtest.h"

namespace temper {
namespace {

constexpr char kMark[] = "\xEF\xBF\xBD";

TEST(Utf8Test, ReplaceInvalidUtf8_WellFormed_IsKept) {
  for (const char* text : {"", "plain", "é", "日本語", "😀", "\x7F", "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(ReplaceInvalidUtf8(text), text);
  }
}

TEST(Utf8Test, ReplaceInvalidUtf8_IllFormed_IsMarked) {
  const std::string mark = kMark;
  EXPECT_EQ(ReplaceInvalidUtf8("a\xFFz"), "a" + mark + "z");
  EXPECT_EQ(ReplaceInvalidUtf8("\xC3"), mark);                        // cut short
  EXPECT_EQ(ReplaceInvalidUtf8("\xC0\xAF"), mark + mark);             // overlong
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), mark + mark + mark);  // surrogate
  EXPECT_EQ(ReplaceInvalidUtf8("\xF5\x80\x80\x80"), mark + mark + mark + mark);
  EXPECT_EQ(ReplaceInvalidUtf8("\xE2\x82z"), mark + mark + "z");
}

}  // namespace
}  // namespace temper
