// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace temper {

// What a teacher has said of scored tokens, a row of each: the most probable tokens in its place.
struct TeacherTokens {
  std::vector<int64_t> starts = {0};  // row r has [starts[r], starts[r + 1]) of
  std::vector<uint32_t> tokens;       // each once in a row
  std::vector<float> logprobs;

  int64_t rows() const { return static_cast<int64_t>(starts.size()) - 1; }

  // Leaves the first rows.
  void Truncate(int64_t rows) {
    starts.resize(rows + 1);
    tokens.resize(starts.back());
    logprobs.resize(starts.back());
  }

  // Adds rows [begin, end) of another one.
  void Append(const TeacherTokens& from, int64_t begin, int64_t end) {
    const int64_t shift = static_cast<int64_t>(tokens.size()) - from.starts[begin];
    for (int64_t row = begin; row < end; ++row) starts.push_back(from.starts[row + 1] + shift);
    tokens.insert(tokens.end(), from.tokens.begin() + from.starts[begin], from.tokens.begin() + from.starts[end]);
    logprobs.insert(logprobs.end(), from.logprobs.begin() + from.starts[begin],
                    from.logprobs.begin() + from.starts[end]);
  }
};

}  // namespace temper
