// SPDX-License-Identifier: Apache-2.0
#include "client/pauses.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>

namespace temper {
namespace {

constexpr absl::Duration kLongest = absl::Seconds(5);

}  // namespace

void Pauses::Next() {
  static thread_local std::minstd_rand random{std::random_device()()};
  const absl::Duration pause = longest_ * std::uniform_real_distribution<double>(0.5, 1)(random);
  longest_ = std::min(2 * longest_, kLongest);
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  stopped.wait_for(lock, stop_, absl::ToChronoMilliseconds(pause), [] { return false; });
}

}  // namespace temper
