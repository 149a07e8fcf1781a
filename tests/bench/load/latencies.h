// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>
#include <vector>

namespace temper {

// Durations of one kind, and their quantiles. Any thread.
class Latencies {
 public:
  struct Summary {
    size_t count = 0;
    double p50_ms = 0;
    double p99_ms = 0;
    double longest_ms = 0;
  };

  void Add(std::chrono::steady_clock::duration duration) {
    std::lock_guard lock(mutex_);
    milliseconds_.push_back(std::chrono::duration<double, std::milli>(duration).count());
  }

  // Of all since the last call.
  Summary Take() {
    std::vector<double> sorted;
    {
      std::lock_guard lock(mutex_);
      sorted.swap(milliseconds_);
    }
    if (sorted.empty()) return {};
    std::sort(sorted.begin(), sorted.end());
    const auto quantile = [&sorted](double share) {
      return sorted[std::min(sorted.size() - 1, static_cast<size_t>(share * static_cast<double>(sorted.size())))];
    };
    return {sorted.size(), quantile(0.5), quantile(0.99), sorted.back()};
  }

 private:
  std::mutex mutex_;
  std::vector<double> milliseconds_;
};

}  // namespace temper
