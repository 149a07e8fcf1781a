// SPDX-License-Identifier: Apache-2.0
#include "client/command/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "client/command/format.h"

namespace temper::command {
namespace {

constexpr char kEraseLine[] = "\r\x1b[K";

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

int Terminal::Width() const {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void StatusLine::Draw(const std::string& text) {
  if (!terminal_.interactive) return;
  text_ = text;
  // The last column stays free: some terminals wrap when it is written.
  const std::string line = absl::StrCat(kEraseLine, Truncated(text, terminal_.Width() - 1));
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

void StatusLine::Print(std::string_view line) {
  const std::string below = text_;
  Clear();
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fputc('\n', stdout);
  if (!below.empty()) Draw(below);
  std::fflush(stdout);
}

void StatusLine::Clear() {
  if (text_.empty()) return;
  text_.clear();
  std::fputs(kEraseLine, stdout);
  std::fflush(stdout);
}

std::string Bar(double ratio, int width) {
  const int filled = static_cast<int>(std::clamp(ratio, 0.0, 1.0) * width);
  return absl::StrCat("[", std::string(static_cast<size_t>(filled), '#'),
                      std::string(static_cast<size_t>(width - filled), '.'), "]");
}

}  // namespace temper::command
