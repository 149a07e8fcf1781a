// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stop_token>
#include <utility>

#include "absl/time/time.h"

namespace temper {

// Pauses between attempts: of 0.2 s at first and then twice as long each time, up to 5 s, or any shorter one down to
// the half of that, so that clients don't come back together. One thread.
class Pauses {
 public:
  explicit Pauses(std::stop_token stop) : stop_(std::move(stop)) {}

  // Sleeps, unless told to stop before.
  void Next();
  // The next one is the first again.
  void Restart() { longest_ = kFirst; }

 private:
  static constexpr absl::Duration kFirst = absl::Milliseconds(200);

  const std::stop_token stop_;
  absl::Duration longest_ = kFirst;
};

}  // namespace temper
