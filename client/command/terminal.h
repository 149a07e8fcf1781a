// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace temper::command {

enum class Color { kGreen, kRed, kYellow, kDim };

// What standard output is: a terminal, where lines can be redrawn and coloured, or a pipe or file, where they can't.
struct Terminal {
  bool interactive = false;
  bool color = false;

  // `color`: "always", "never", or "auto": then it needs a terminal, no NO_COLOR (https://no-color.org) and a TERM that
  // is not "dumb"; redrawing needs the first and the last always.
  static Terminal OfStandardOutput(std::string_view color);

  std::string Paint(Color color, const std::string& text) const;
  // Columns and lines at this moment; 80 and 24 when unknown.
  int Width() const;
  int Height() const;
};

// The last lines of a terminal, redrawn in place, below lines that stay. Without a terminal they are never drawn. They
// are wiped when the object goes. One thread.
class StatusArea {
 public:
  explicit StatusArea(const Terminal& terminal) : terminal_(terminal) {}
  ~StatusArea() { Clear(); }
  StatusArea(const StatusArea&) = delete;
  StatusArea& operator=(const StatusArea&) = delete;

  // Replaces the lines, of which there must be fewer than the terminal has; each is cut to its width.
  void Draw(std::vector<std::string> lines);
  // Writes a line that stays, above.
  void Print(std::string_view line);
  void Clear();

 private:
  // What brings the cursor to the beginning of the first line.
  std::string ToBegin() const;

  const Terminal& terminal_;
  std::vector<std::string> lines_;  // what is on the screen
};

// "[#######...]" with `width` columns inside; `ratio` is clamped to 0 to 1.
std::string Bar(double ratio, int width);

}  // namespace temper::command
