// SPDX-License-Identifier: Apache-2.0
#include "client/command/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/command/format.h"

namespace temper::command {
namespace {

constexpr char kEraseLine[] = "\x1b[K";   // from the cursor on
constexpr char kEraseBelow[] = "\x1b[J";  // from the cursor to the end of the screen

const char* Escape(Color color) {
  switch (color) {
    case Color::kGreen:
      return "\x1b[32m";
    case Color::kRed:
      return "\x1b[31m";
    case Color::kYellow:
      return "\x1b[33m";
    case Color::kDim:
      return "\x1b[2m";
  }
  return "";
}

winsize WindowSize() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) size = {};
  if (size.ws_col == 0) size.ws_col = 80;
  if (size.ws_row == 0) size.ws_row = 24;
  return size;
}

}  // namespace

Terminal Terminal::OfStandardOutput(std::string_view color) {
  const char* term = std::getenv("TERM");
  const char* no_color = std::getenv("NO_COLOR");
  Terminal terminal;
  terminal.interactive = ::isatty(STDOUT_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
  terminal.color =
      color == "always" || (color != "never" && terminal.interactive && (no_color == nullptr || *no_color == '\0'));
  return terminal;
}

std::string Terminal::Paint(Color paint, const std::string& text) const {
  return color ? absl::StrCat(Escape(paint), text, "\x1b[0m") : text;
}

int Terminal::Width() const { return WindowSize().ws_col; }
int Terminal::Height() const { return WindowSize().ws_row; }

std::string StatusArea::ToBegin() const {
  return lines_.size() > 1 ? absl::StrCat("\x1b[", lines_.size() - 1, "A\r") : "\r";
}

void StatusArea::Draw(std::vector<std::string> lines) {
  if (!terminal_.interactive) return;
  std::string text = ToBegin();
  for (const std::string& line : lines) {
    // The last column stays free: some terminals wrap when it is written.
    absl::StrAppend(&text, &line == &lines.front() ? "" : "\n", kEraseLine, Truncated(line, terminal_.Width() - 1));
  }
  if (lines.size() < lines_.size()) text += kEraseBelow;
  lines_ = std::move(lines);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void StatusArea::Print(std::string_view line) {
  const std::vector<std::string> below = lines_;
  Clear();
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fputc('\n', stdout);
  if (!below.empty()) Draw(below);
  std::fflush(stdout);
}

void StatusArea::Clear() {
  if (lines_.empty()) return;
  std::fputs(absl::StrCat(ToBegin(), lines_.size() > 1 ? kEraseBelow : kEraseLine).c_str(), stdout);
  lines_.clear();
  std::fflush(stdout);
}

std::string Bar(double ratio, int width) {
  const int filled = static_cast<int>(std::clamp(ratio, 0.0, 1.0) * width);
  return absl::StrCat("[", std::string(static_cast<size_t>(filled), '#'),
                      std::string(static_cast<size_t>(width - filled), '.'), "]");
}

}  // namespace temper::command
