// SPDX-License-Identifier: Apache-2.0
#include "common/storage/retry.h"

#include <algorithm>
#include <random>
#include <thread>

namespace temper {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kFirstPause{100}, kLongestPause{5000};

}  // namespace

milliseconds RetryPauses::Pause(int64_t failure, milliseconds limit) {
  static thread_local std::minstd_rand random{std::random_device()()};
  const milliseconds pause =
      std::min(kFirstPause * (int64_t{1} << std::min<int64_t>(failure, 10)), std::min(kLongestPause, limit));
  return milliseconds(std::uniform_int_distribution<int64_t>(pause.count() / 2, pause.count())(random));
}

bool RetryPauses::Again(milliseconds at_least) {
  const auto now = std::chrono::steady_clock::now();
  if (failures_ == 0) first_failure_ = now;
  const auto left = std::chrono::duration_cast<milliseconds>(deadline_ - (now - first_failure_));
  if (left <= milliseconds(0) || at_least > left) return false;
  std::this_thread::sleep_for(std::max(at_least, Pause(failures_++, deadline_)));
  return true;
}

}  // namespace temper
