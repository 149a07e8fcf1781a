// SPDX-License-Identifier: Apache-2.0
#include "client/command/chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/command/format.h"

namespace temper::command {
namespace {

constexpr int kLabelWidth = 8;
constexpr int kLeastWidth = 36;  // of a chart
constexpr int kMostWidth = 90;
constexpr int kHeight = 8;
constexpr int kLeastGap = 8;    // between the first step and the last, for a word
constexpr int kDotsAcross = 2;  // of a character
constexpr int kDotsDown = 4;

// The bit of a braille character (U+2800) for its dot in that column and row.
constexpr std::array<std::array<uint8_t, kDotsDown>, kDotsAcross> kDots = {
    {{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}}};

std::string Repeated(std::string_view text, int times) {
  std::string repeated;
  for (int i = 0; i < times; ++i) repeated += text;
  return repeated;
}

std::string Padded(std::string text, int width) {
  return text + std::string(static_cast<size_t>(std::max(0, width - DisplayWidth(text))), ' ');
}

// Four significant digits, where kLabelWidth has room for them.
std::string Label(double value) {
  std::string label = absl::StrFormat("%.4g", value);
  return label.size() > kLabelWidth ? absl::StrFormat("%.3g", value) : label;
}

std::string Braille(uint8_t dots) {
  // U+2800 + dots, in UTF-8.
  return {static_cast<char>(0xE2), static_cast<char>(0xA0 | dots >> 6), static_cast<char>(0x80 | (dots & 0x3F))};
}

// Dots that may be set, over characters.
class Canvas {
 public:
  Canvas(int columns, int rows)
      : columns_(columns), rows_(rows), cells_(static_cast<size_t>(columns) * static_cast<size_t>(rows)) {}

  int width() const { return columns_ * kDotsAcross; }
  int height() const { return rows_ * kDotsDown; }

  void Set(int x, int y) {
    const auto cell = static_cast<size_t>(y / kDotsDown * columns_ + x / kDotsAcross);
    cells_[cell] |= kDots[static_cast<size_t>(x % kDotsAcross)][static_cast<size_t>(y % kDotsDown)];
  }

  // From one dot to another one that is not left of it.
  void Line(int x0, int y0, int x1, int y1) {
    const int steps = std::max({x1 - x0, std::abs(y1 - y0), 1});
    for (int i = 0; i <= steps; ++i) {
      const double share = static_cast<double>(i) / steps;
      Set(static_cast<int>(std::lround(x0 + share * (x1 - x0))), static_cast<int>(std::lround(y0 + share * (y1 - y0))));
    }
  }

  std::string Row(int row) const {
    std::string text;
    for (int column = 0; column < columns_; ++column) {
      text += Braille(cells_[static_cast<size_t>(row * columns_ + column)]);
    }
    return text;
  }

 private:
  const int columns_;
  const int rows_;
  std::vector<uint8_t> cells_;
};

}  // namespace

std::vector<std::string> DrawChart(const Curve& curve, int width, int height) {
  std::vector<double> known;
  std::copy_if(curve.y.begin(), curve.y.end(), std::back_inserter(known), [](double y) { return std::isfinite(y); });
  const int columns = width - kLabelWidth - 2;
  if (known.size() < 2 || columns < 4 || height < 2) return {};
  const auto [low, high] = std::minmax_element(known.begin(), known.end());
  const double x_span = std::max(curve.x.back() - curve.x.front(), 1e-300);
  const double y_span = *high > *low ? *high - *low : 1;
  Canvas canvas(columns, height);
  const auto place = [&](size_t i) {
    return std::pair(static_cast<int>(std::lround((curve.x[i] - curve.x.front()) / x_span * (canvas.width() - 1))),
                     static_cast<int>(std::lround((*high - curve.y[i]) / y_span * (canvas.height() - 1))));
  };
  for (size_t i = 0; i < curve.y.size(); ++i) {
    if (!std::isfinite(curve.y[i])) continue;
    const auto [x, y] = place(i);
    const bool follows = i > 0 && std::isfinite(curve.y[i - 1]);
    const auto [x0, y0] = follows ? place(i - 1) : std::pair(x, y);
    canvas.Line(x0, y0, x, y);
  }
  std::vector<std::string> lines = {absl::StrFormat("%*s %s", kLabelWidth, "", curve.title)};
  for (int row = 0; row < height; ++row) {
    const std::string label = row == 0 ? Label(*high) : (row == height - 1 ? Label(*low) : "");
    lines.push_back(absl::StrFormat("%*s │", kLabelWidth, label) + canvas.Row(row));
  }
  const std::string first = absl::StrFormat("%.6g", curve.x.front());
  const std::string last = absl::StrFormat("%.6g", curve.x.back());
  lines.push_back(std::string(kLabelWidth + 1, ' ') + "└" + Repeated("─", columns));
  const int gap = std::max(1, columns - static_cast<int>(first.size() + last.size()));
  const std::string between = gap > kLeastGap ? absl::StrFormat("%*s", (gap + 4) / 2, "step") : "";
  lines.push_back(std::string(kLabelWidth + 2, ' ') + first + Padded(between, gap) + last);
  return lines;
}

std::vector<std::string> DrawCharts(const std::vector<Curve>& curves, int width, int height) {
  const int across = std::max(1, width / kLeastWidth);
  const int each = std::min(kMostWidth, width / std::min(across, std::max(1, static_cast<int>(curves.size()))) - 1);
  std::vector<std::vector<std::string>> charts;
  for (const Curve& curve : curves) {
    if (auto chart = DrawChart(curve, each, kHeight); !chart.empty()) charts.push_back(std::move(chart));
  }
  std::vector<std::string> lines;
  for (size_t first = 0; first < charts.size(); first += static_cast<size_t>(across)) {
    if (lines.size() + charts[first].size() > static_cast<size_t>(std::max(0, height))) break;
    const size_t end = std::min(charts.size(), first + static_cast<size_t>(across));
    for (size_t line = 0; line < charts[first].size(); ++line) {
      std::string& text = lines.emplace_back();
      for (size_t chart = first; chart < end; ++chart) {
        text += chart + 1 < end ? Padded(charts[chart][line], each + 1) : charts[chart][line];
      }
    }
  }
  return lines;
}

std::string Sparkline(const std::vector<double>& values, int columns) {
  static constexpr std::array<std::string_view, 8> kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::vector<double> known;
  std::copy_if(values.begin(), values.end(), std::back_inserter(known),
               [](double value) { return std::isfinite(value); });
  const size_t parts = std::min(known.size(), static_cast<size_t>(std::max(0, columns)));
  if (parts < 2) return "";
  std::vector<double> means(parts, 0);
  for (size_t part = 0; part < parts; ++part) {
    const size_t begin = part * known.size() / parts;
    const size_t end = (part + 1) * known.size() / parts;
    for (size_t i = begin; i < end; ++i) means[part] += known[i] / static_cast<double>(end - begin);
  }
  const auto [low, high] = std::minmax_element(means.begin(), means.end());
  const double span = *high > *low ? *high - *low : 1;
  std::string text;
  for (const double mean : means) text += kBlocks[static_cast<size_t>(std::lround((mean - *low) / span * 7))];
  return text;
}

}  // namespace temper::command
