// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <mutex>

namespace temper {

using WallTime = std::chrono::system_clock::time_point;
using MonotonicTime = std::chrono::steady_clock::time_point;

// Where time comes from. Wall time is for people and records; monotonic time is for limits, since nobody sets it back.
// Any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime Wall() const = 0;
  virtual MonotonicTime Monotonic() const = 0;
};

// The machine's own.
class RealClock final : public Clock {
 public:
  WallTime Wall() const override { return std::chrono::system_clock::now(); }
  MonotonicTime Monotonic() const override { return std::chrono::steady_clock::now(); }
};

// Stands still until a test moves it.
class FakeClock final : public Clock {
 public:
  // 2026-01-01T00:00:00Z.
  FakeClock() : wall_(std::chrono::seconds(1'767'225'600)), monotonic_(std::chrono::hours(1)) {}

  WallTime Wall() const override {
    std::lock_guard lock(mutex_);
    return wall_;
  }
  MonotonicTime Monotonic() const override {
    std::lock_guard lock(mutex_);
    return monotonic_;
  }
  void Advance(std::chrono::nanoseconds by) {
    std::lock_guard lock(mutex_);
    wall_ += std::chrono::duration_cast<WallTime::duration>(by);
    monotonic_ += std::chrono::duration_cast<MonotonicTime::duration>(by);
  }
  // The administrator sets the date: monotonic time does not notice.
  void SetWall(WallTime wall) {
    std::lock_guard lock(mutex_);
    wall_ = wall;
  }

 private:
  mutable std::mutex mutex_;
  WallTime wall_;
  MonotonicTime monotonic_;
};

}  // namespace temper
