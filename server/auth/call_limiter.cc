// SPDX-License-Identifier: Apache-2.0
#include "server/auth/call_limiter.h"

#include <algorithm>
#include <chrono>

namespace temper {

bool CallLimiter::Take(const std::string& identity) {
  if (per_second_ <= 0) return true;
  const double size = std::max(1.0, 2 * per_second_);
  const MonotonicTime now = clock_.Monotonic();
  std::lock_guard lock(mutex_);
  Bucket& bucket = buckets_.try_emplace(identity, Bucket{.left = size, .filled = now}).first->second;
  const double passed = std::chrono::duration<double>(now - bucket.filled).count();
  bucket.left = std::min(size, bucket.left + passed * per_second_);
  bucket.filled = now;
  if (bucket.left < 1) return false;
  bucket.left -= 1;
  return true;
}

}  // namespace temper
