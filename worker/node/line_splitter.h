// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace temper {

// Cuts what a process prints into lines. A line longer than `max_bytes` becomes several; a carriage return ends a line
// like a newline does (progress bars), and empty lines are left out.
class LineSplitter {
 public:
  using OnLine = std::function<void(const std::string& line)>;
  explicit LineSplitter(OnLine on_line, size_t max_bytes = 8192)
      : on_line_(std::move(on_line)), max_bytes_(max_bytes) {}

  void Append(std::string_view bytes);
  // What is left is a line too.
  void Flush();

 private:
  OnLine on_line_;
  const size_t max_bytes_;
  std::string line_;
};

}  // namespace temper
