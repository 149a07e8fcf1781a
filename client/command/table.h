// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace temper::command {

// Rows of text in aligned columns. Cells are made printable; the last column is cut to what the terminal has left.
class Table {
 public:
  // Columns whose header begins with '>' are aligned to the right, without the '>'.
  explicit Table(const std::vector<std::string>& headers);

  void AddRow(std::vector<std::string> cells);
  // The whole table with a line end after each row; lines are at most `width` columns if the columns before the last
  // one leave room. 0: no limit.
  std::string Render(int width) const;

 private:
  struct Column {
    std::string header;
    bool right = false;
  };
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace temper::command
