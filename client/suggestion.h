// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace temper {

// What somebody who wrote `word` probably meant: the candidate at the smallest edit distance (Levenshtein 1966, without
// regard to case), if that is at most two fifths of the longer word, or 1. The first of several equals.
std::optional<std::string> ClosestName(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace temper
