// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>

#include "common/clock.h"
#include "google/protobuf/timestamp.pb.h"

namespace temper {

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
