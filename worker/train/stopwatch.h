// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <utility>

namespace temper {

// Seconds since it was made, or since the last lap.
class Stopwatch {
 public:
  double Lap() {
    const Clock::time_point begin = std::exchange(begin_, Clock::now());
    return std::chrono::duration<double>(begin_ - begin).count();
  }

  // The same, without ending the lap.
  double Elapsed() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace temper
