// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace temper::ops {

// What happens to the scores q·k before the softmax.
struct ScoreConfig {
  double scale = 1.0;
  // Above 0: softcap · tanh(score / softcap), after the scale (Gemma 2).
  double softcap = 0.0;
  // Above 0: a query sees this many keys, itself and those right before it (sliding window).
  int64_t window = 0;

  bool operator==(const ScoreConfig&) const = default;
};

}  // namespace temper::ops
