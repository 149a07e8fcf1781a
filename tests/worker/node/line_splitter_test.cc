// SPDX-License-Identifier: Apache-2.0
#include "worker/node/line_splitter.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace temper {
namespace {

using testing::ElementsAre;

TEST(LineSplitterTest, Append_PiecesOfLines_AreJoined) {
  std::vector<std::string> lines;
  LineSplitter splitter([&](const std::string& line) { lines.push_back(line); });
  splitter.Append("on");
  splitter.Append("e\ntwo\r\n\nthr");
  EXPECT_THAT(lines, ElementsAre("one", "two"));
  splitter.Append("ee");
  splitter.Flush();
  splitter.Flush();
  EXPECT_THAT(lines, ElementsAre("one", "two", "three"));
}

TEST(LineSplitterTest, Append_EndlessLine_IsCut) {
  std::vector<std::string> lines;
  LineSplitter splitter([&](const std::string& line) { lines.push_back(line); }, 4);
  splitter.Append("abcdefgh\nij\n");
  EXPECT_THAT(lines, ElementsAre("abcd", "efgh", "ij"));
}

}  // namespace
}  // namespace temper
