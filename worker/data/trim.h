// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string_view>

namespace temper {

// A text without ASCII white space at its beginning, its end, or both. (Debian's Abseil does not take
// std::string_view.)
constexpr std::string_view kAsciiSpace = " \t\n\v\f\r";

inline std::string_view TrimStart(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kAsciiSpace), text.size()));
  return text;
}

inline std::string_view TrimEnd(std::string_view text) {
  return text.substr(0, text.find_last_not_of(kAsciiSpace) + 1);  // npos + 1 is 0
}

inline std::string_view Trim(std::string_view text) { return TrimEnd(TrimStart(text)); }

}  // namespace temper
