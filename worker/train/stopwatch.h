// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace temper {

// Seconds since it was made, or since the last lap.
class Stopwatch {
 public:
  double Lap() {
    const Clock::time_point now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - begin_).count();
    begin_ = now;
    return seconds;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace temper
