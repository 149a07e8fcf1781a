// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

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
  // Columns at this moment; 80 when unknown.
  int Width() const;
};

// The last line of a terminal, redrawn in place, below lines that stay. Without a terminal it is never drawn. It is
// wiped when the object goes. One thread.
class StatusLine {
 public:
  explicit StatusLine(const Terminal& terminal) : terminal_(terminal) {}
  ~StatusLine() { Clear(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  // Replaces the line; the text is cut to the terminal's width.
  void Draw(const std::string& text);
  // Writes a line that stays, above.
  void Print(std::string_view line);
  void Clear();

 private:
  const Terminal& terminal_;
  std::string text_;  // what is on the screen
};

// "[#######...]" with `width` columns inside; `ratio` is clamped to 0 to 1.
std::string Bar(double ratio, int width);

}  // namespace temper::command
