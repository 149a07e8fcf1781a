// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

namespace temper {

// Asks a training to end, from any thread. A stop stays; one that keeps nothing overrules one that checkpoints first.
class StopSignal {
 public:
  // `checkpoint`: finish the step and commit a checkpoint first.
  void Request(bool checkpoint) {
    if (!checkpoint) now_ = true;
    requested_ = true;
  }

  // End now, and keep nothing.
  bool now() const { return now_; }
  // End, one way or the other. A reference, for what has nothing to keep and can be left at any point.
  const std::atomic<bool>& requested() const { return requested_; }

 private:
  std::atomic<bool> now_ = false;
  std::atomic<bool> requested_ = false;
};

}  // namespace temper
