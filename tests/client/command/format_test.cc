// SPDX-License-Identifier: Apache-2.0
#include "client/command/format.h"

#include <gtest/gtest.h>

#include <limits>

namespace temper::command {
namespace {

TEST(Format, Durations_FitTheirSize) {
  EXPECT_EQ(HumanDuration(absl::Milliseconds(420)), "0.4s");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(9960)), "10s");
  EXPECT_EQ(HumanDuration(absl::Seconds(185)), "3m05s");
  EXPECT_EQ(HumanDuration(absl::Seconds(59.7)), "1m00s");
  EXPECT_EQ(HumanDuration(absl::Minutes(127)), "2h07m");
  EXPECT_EQ(HumanDuration(absl::Hours(99)), "4d03h");
  EXPECT_EQ(HumanDuration(-absl::Seconds(3)), "0.0s");
  EXPECT_EQ(HumanDuration(absl::InfiniteDuration()), "-");
}

TEST(Format, Bytes_UsePowersOfThousand) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(999), "999 B");
  EXPECT_EQ(HumanBytes(1000), "1.0 kB");
  EXPECT_EQ(HumanBytes(999'960), "1.0 MB");
  EXPECT_EQ(HumanBytes(269'060'552), "269.1 MB");
}

TEST(Format, Rates_HaveThousands) {
  EXPECT_EQ(HumanRate(87.06), "87.1");
  EXPECT_EQ(HumanRate(1234.4), "1,234");
  EXPECT_EQ(HumanRate(12345678), "12,345,678");
  EXPECT_EQ(HumanRate(std::numeric_limits<double>::infinity()), "-");
}

TEST(Format, Names_HaveNoPrefix) {
  EXPECT_EQ(StateName(v1::JOB_STATE_RUNNING), "RUNNING");
  EXPECT_EQ(CauseName(v1::FAILURE_CAUSE_OUT_OF_MEMORY), "OUT_OF_MEMORY");
  EXPECT_EQ(CauseName(v1::FAILURE_CAUSE_UNSPECIFIED), "");
}

TEST(Format, Time_UnsetIsDash) {
  google::protobuf::Timestamp time;
  EXPECT_EQ(HumanTime(time, absl::UTCTimeZone()), "-");
  time.set_seconds(1767225600);
  EXPECT_EQ(HumanTime(time, absl::UTCTimeZone()), "2026-01-01 00:00:00");
}

TEST(Printable, EscapeSequencesAndBadBytes_AreHarmless) {
  EXPECT_EQ(Printable("a\x1b[31mb"), "a?[31mb");
  EXPECT_EQ(Printable("tab\tline\nbell\a"), "tab line bell?");
  EXPECT_EQ(Printable("caf\xc3\xa9 \xe6\x9d\xb1"), "café 東");
  EXPECT_EQ(Printable("\xc3("), "?(");
  EXPECT_EQ(Printable("\xc0\x9b[31m"), "??[31m");  // an overlong ESC
  EXPECT_EQ(Printable("\xc2\x9b"
                      "31m"),
            "?31m");                            // C1's CSI
  EXPECT_EQ(Printable("\xed\xa0\x80"), "???");  // a surrogate
}

TEST(Truncated, CountsColumns_NotBytes) {
  EXPECT_EQ(DisplayWidth("café"), 4);
  EXPECT_EQ(DisplayWidth("東京"), 4);
  EXPECT_EQ(Truncated("hello", 5), "hello");
  EXPECT_EQ(Truncated("hello!", 5), "hell…");
  EXPECT_EQ(Truncated("東京都", 5), "東京…");
  EXPECT_EQ(Truncated("東京都", 4), "東…");
  EXPECT_EQ(Truncated("x", 0), "");
}

}  // namespace
}  // namespace temper::command
