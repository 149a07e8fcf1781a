// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>

namespace temper {

// Pauses between attempts at a request: doubled each time, and then anything between a half and the whole of it, so
// that clients don't come back together. One thread.
class RetryPauses {
 public:
  // Until `deadline` has passed since the first failure.
  explicit RetryPauses(std::chrono::milliseconds deadline) : deadline_(deadline) {}

  // After a failure: sleeps, at least for `at_least`, and says whether to try again.
  bool Again(std::chrono::milliseconds at_least = {});

  // The pause after the failure with this number, from 0 on; never longer than `limit`.
  static std::chrono::milliseconds Pause(int64_t failure, std::chrono::milliseconds limit);

 private:
  const std::chrono::milliseconds deadline_;
  int64_t failures_ = 0;
  std::chrono::steady_clock::time_point first_failure_;
};

}  // namespace temper
