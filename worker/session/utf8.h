// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace temper {

// `text` with every byte that is not part of well-formed UTF-8 (RFC 3629) replaced by U+FFFD. A proto3 string that is
// not UTF-8 is refused by whoever parses it, and a line of a log or of a user's file may hold anything.
std::string ReplaceInvalidUtf8(std::string_view text);

}  // namespace temper
