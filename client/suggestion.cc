// SPDX-License-Identifier: Apache-2.0
#include "client/suggestion.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/ascii.h"

namespace temper {
namespace {

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);  // distances of a's prefix to every prefix of b
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

}  // namespace

std::optional<std::string> ClosestName(std::string_view word, const std::vector<std::string>& candidates) {
  // Nobody mistypes a name of a kilobyte; the bound keeps the quadratic cost away from hostile input.
  if (word.empty() || word.size() > 100) return std::nullopt;
  const std::string lower = absl::AsciiStrToLower(std::string(word));
  std::optional<std::string> best;
  size_t best_distance = 0;
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(lower, absl::AsciiStrToLower(candidate));
    const size_t limit = std::max<size_t>(1, std::max(word.size(), candidate.size()) * 2 / 5);
    if (distance > limit || (best && distance >= best_distance)) continue;
    best = candidate;
    best_distance = distance;
  }
  return best;
}

}  // namespace temper
