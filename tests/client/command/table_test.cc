// SPDX-License-Identifier: Apache-2.0
#include "client/command/table.h"

#include <gtest/gtest.h>

namespace temper::command {
namespace {

TEST(Table, Columns_AreAligned) {
  Table table({"JOB", ">STEP", "REASON"});
  table.AddRow({"a", "1/20", "waits"});
  table.AddRow({"long-id", "-", "東 \x1b[0m"});
  EXPECT_EQ(table.Render(0),
            "JOB      STEP  REASON\n"
            "a        1/20  waits\n"
            "long-id     -  東 ?[0m\n");
}

TEST(Table, NarrowTerminal_CutsTheLastColumn) {
  Table table({"JOB", "REASON"});
  table.AddRow({"abc", "a very long reason"});
  EXPECT_EQ(table.Render(12),
            "JOB  REASON\n"
            "abc  a very…\n");
}

}  // namespace
}  // namespace temper::command
