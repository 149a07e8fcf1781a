// SPDX-License-Identifier: Apache-2.0
#include "client/command/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "client/command/format.h"

namespace temper::command {
namespace {

TEST(Chart, StraightLine_GoesFromCornerToCorner) {
  const auto chart = DrawChart({.title = "Loss", .x = {1, 8}, .y = {2, 0.5}}, /*width=*/14, /*height=*/2);
  EXPECT_THAT(chart, testing::ElementsAre("         Loss",   //
                                          "       2 │⠑⢄⠀⠀",  //
                                          "     0.5 │⠀⠀⠑⢄",  //
                                          "         └────",  //
                                          "          1  8"));
}

TEST(Chart, WhatIsNotFinite_IsAGap) {
  const double nan = std::nan("");
  const auto chart = DrawChart({.title = "", .x = {0, 1, 2, 3, 4}, .y = {0, 0, nan, 1, 1}}, /*width=*/15, /*height=*/2);
  EXPECT_EQ(chart[1], "       1 │⠀⠀⠀⠈⠉");
  EXPECT_EQ(chart[2], "       0 │⣀⡀⠀⠀⠀");
}

TEST(Chart, LongLabels_MoveNoLine) {
  const auto chart = DrawChart({.title = "", .x = {0, 1}, .y = {0.00054761, 35712.4}}, /*width=*/14, /*height=*/2);
  EXPECT_THAT(chart[1], testing::StartsWith("3.57e+04 │"));
  EXPECT_THAT(chart[2], testing::StartsWith("0.000548 │"));
}

TEST(Chart, OneValue_IsNoCurve) {
  EXPECT_TRUE(DrawChart({.title = "Loss", .x = {1}, .y = {2}}, 40, 8).empty());
  EXPECT_TRUE(DrawCharts({{.title = "Loss", .x = {1}, .y = {2}}}, 80).empty());
}

TEST(Chart, Several_StandBesideEachOther) {
  const Curve curve{.title = "Loss", .x = {1, 2, 3}, .y = {3, 2, 1}};
  const auto wide = DrawCharts({curve, curve}, 80);
  const auto narrow = DrawCharts({curve, curve}, 50);
  EXPECT_EQ(wide.size() * 2, narrow.size());
  for (const auto& [lines, width] : {std::pair(wide, 80), std::pair(narrow, 50)}) {
    for (const std::string& line : lines) EXPECT_LE(DisplayWidth(line), width);
  }
}

TEST(Chart, LowScreen_HasThoseThatFit) {
  const Curve curve{.title = "Loss", .x = {1, 2, 3}, .y = {3, 2, 1}};
  const std::vector<Curve> three(3, curve);
  const size_t one_row = DrawCharts({curve}, 80).size();
  EXPECT_EQ(DrawCharts(three, 80, static_cast<int>(2 * one_row)).size(), 2 * one_row);
  EXPECT_EQ(DrawCharts(three, 80, static_cast<int>(2 * one_row) - 1).size(), one_row);
  EXPECT_TRUE(DrawCharts(three, 80, static_cast<int>(one_row) - 1).empty());
  EXPECT_TRUE(DrawCharts(three, 80, -3).empty());
}

TEST(Sparkline, ShowsMeansOfParts) {
  EXPECT_EQ(Sparkline({8, 7, 6, 5, 4, 3, 2, 1}, 8), "█▇▆▅▄▃▂▁");
  EXPECT_EQ(Sparkline({3, 5, 1, 1}, 2), "█▁");
  EXPECT_EQ(Sparkline({1, INFINITY}, 8), "");
}

}  // namespace
}  // namespace temper::command
