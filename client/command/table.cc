// SPDX-License-Identifier: Apache-2.0
#include "client/command/table.h"

#include <algorithm>

#include "client/command/format.h"

namespace temper::command {
namespace {

constexpr int kGap = 2;

std::string Spaces(int count) { return std::string(static_cast<size_t>(std::max(count, 0)), ' '); }

}  // namespace

Table::Table(const std::vector<std::string>& headers) {
  for (const std::string& header : headers) {
    const bool right = header.starts_with('>');
    columns_.push_back({right ? header.substr(1) : header, right});
  }
}

void Table::AddRow(std::vector<std::string> cells) {
  for (std::string& cell : cells) cell = Printable(cell);
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::Render(int width) const {
  std::vector<std::string> header;
  std::vector<int> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    header.push_back(columns_[i].header);
    int widest = DisplayWidth(columns_[i].header);
    for (const auto& row : rows_) widest = std::max(widest, DisplayWidth(row[i]));
    widths.push_back(widest);
  }
  std::string out;
  const auto append = [&](const std::vector<std::string>& row) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      std::string cell = row[i];
      const bool last = i + 1 == row.size();
      const int left = width - DisplayWidth(line);
      if (last && width > 0 && left > 3) cell = Truncated(cell, left);
      const std::string padding = Spaces(widths[i] - DisplayWidth(cell));
      line += columns_[i].right ? padding + cell : cell + padding;
      if (!last) line += Spaces(kGap);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  append(header);
  for (const auto& row : rows_) append(row);
  return out;
}

}  // namespace temper::command
