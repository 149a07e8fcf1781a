// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "common/clock.h"
#include "google/protobuf/timestamp.pb.h"

namespace temper {

// Microseconds since 1970, as the store keeps them.
inline int64_t ToMicroseconds(WallTime time) {
  return std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
}

inline WallTime FromMicroseconds(int64_t microseconds) {
  return WallTime(std::chrono::duration_cast<WallTime::duration>(std::chrono::microseconds(microseconds)));
}

inline google::protobuf::Timestamp ToTimestamp(WallTime time) {
  using std::chrono::nanoseconds;
  using std::chrono::seconds;
  const auto whole = std::chrono::floor<seconds>(time.time_since_epoch());
  google::protobuf::Timestamp timestamp;
  timestamp.set_seconds(whole.count());
  const auto rest = std::chrono::duration_cast<nanoseconds>(time.time_since_epoch() - whole);
  timestamp.set_nanos(static_cast<int32_t>(rest.count()));
  return timestamp;
}

inline WallTime FromTimestamp(const google::protobuf::Timestamp& timestamp) {
  return WallTime(std::chrono::duration_cast<WallTime::duration>(std::chrono::seconds(timestamp.seconds()) +
                                                                 std::chrono::nanoseconds(timestamp.nanos())));
}

}  // namespace temper
