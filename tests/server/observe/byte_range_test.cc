// SPDX-License-Identifier: Apache-2.0
#include "server/observe/byte_range.h"

#include <gtest/gtest.h>

#include <string>

namespace temper {
namespace {

// "offset+length", "all" or "none", of a file of ten bytes.
std::string Asked(std::string_view header) {
  const auto range = ParseByteRange(header, 10);
  if (!range.ok()) return "none";
  if (!range->has_value()) return "all";
  return std::to_string((*range)->offset) + "+" + std::to_string((*range)->length);
}

TEST(ByteRange, OnePart_IsCutToWhatThereIs) {
  EXPECT_EQ(Asked("bytes=0-"), "0+10");
  EXPECT_EQ(Asked("bytes=3-5"), "3+3");
  EXPECT_EQ(Asked("bytes=9-9"), "9+1");
  EXPECT_EQ(Asked("bytes=3-99"), "3+7");
  EXPECT_EQ(Asked("bytes=-4"), "6+4");
  EXPECT_EQ(Asked("bytes=-99"), "0+10");
}

TEST(ByteRange, PartThatIsNotThere_IsNone) {
  for (const char* header : {"bytes=10-", "bytes=10-12", "bytes=99-", "bytes=-0"}) {
    EXPECT_EQ(Asked(header), "none") << header;
  }
  EXPECT_FALSE(ParseByteRange("bytes=-1", 0).ok());
}

TEST(ByteRange, WhatIsNoPart_IsAll) {
  for (const char* header : {"", "bytes", "bytes=", "bytes=-", "bytes=5-3", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b",
                             "bytes=+1-2", "bytes=1--2", "bytes= 1-2", "bytes=99999999999999999999-"}) {
    EXPECT_EQ(Asked(header), "all") << header;
  }
}

}  // namespace
}  // namespace temper
