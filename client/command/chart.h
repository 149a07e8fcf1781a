// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <string>
#include <vector>

namespace temper::command {

struct Curve {
  std::string title;
  std::vector<double> x;  // in order
  std::vector<double> y;  // as many; what is not finite leaves a gap
};

// A curve in braille, two by four dots a character, with its bounds at its sides:
//
//   Loss
//   2.332 │⣀
//         │⠀⠉⠢⢄⣀
//   0.004 │⠀⠀⠀⠀⠀⠉⠉⠒⠒⠤⠤
//         └──────────────
//          1   step    53
//
// `width` columns in all, `height` of the curve. Empty when there are fewer than two values to draw.
std::vector<std::string> DrawChart(const Curve& curve, int width, int height);

// Charts beside each other, as many as `width` has room for, and below each other as far as there are `height` lines.
std::vector<std::string> DrawCharts(const std::vector<Curve>& curves, int width,
                                    int height = std::numeric_limits<int>::max());

// "▇▆▄▂▁▁": the means of `columns` parts of the values, the lowest as the lowest block. Fewer values take fewer
// columns.
std::string Sparkline(const std::vector<double>& values, int columns);

}  // namespace temper::command
