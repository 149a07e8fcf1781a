// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "common/clock.h"

namespace temper {

// How often each identity may call: `per_second` in the long run, and twice as many at once, but one at least (a token
// bucket). Any thread.
class CallLimiter {
 public:
  // 0 calls: no limit. `clock` must outlive it.
  CallLimiter(double per_second, const Clock& clock) : per_second_(per_second), clock_(clock) {}

  // Whether a call may be made now; it is counted then.
  bool Take(const std::string& identity);

 private:
  struct Bucket {
    double left = 0;
    MonotonicTime filled;
  };

  const double per_second_;
  const Clock& clock_;
  std::mutex mutex_;
  std::map<std::string, Bucket> buckets_;  // guarded by mutex_; as many as there are identities with a token
};

}  // namespace temper
