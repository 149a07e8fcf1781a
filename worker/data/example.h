// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "worker/data/teacher_tokens.h"

namespace temper {

// A document as tokens: a sample, or one of the two answers of a pair with its prompt.
struct Example {
  std::vector<uint32_t> ids;
  // 1 for a token that the loss looks at: what is learned to be written behind what stands before it.
  std::vector<uint8_t> scored;
  // Where samples bring it: of each scored token that has one before it. Else without rows.
  TeacherTokens teacher = {};
};

}  // namespace temper
