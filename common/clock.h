// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <time.h>

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
  // Since some moment before the process began. Nobody sets it, and it goes on while the machine sleeps.
  virtual std::chrono::nanoseconds Elapsed() const = 0;
};

// The machine's own.
class RealClock final : public Clock {
 public:
  WallTime Wall() const override { return std::chrono::system_clock::now(); }
  MonotonicTime Monotonic() const override { return std::chrono::steady_clock::now(); }
  std::chrono::nanoseconds Elapsed() const override {
    timespec time{};
    ::clock_gettime(CLOCK_BOOTTIME, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  }
};

// A wall clock that goes on evenly, from what the machine's clock says when this is made: setting that one moves no
// time of a record, no retry and no age of what is to be deleted.
class SteadyClock final : public Clock {
 public:
  // `machine` must outlive it.
  explicit SteadyClock(const Clock& machine)
      : machine_(machine), begin_(machine.Wall()), begin_elapsed_(machine.Elapsed()) {}

  WallTime Wall() const override {
    return begin_ + std::chrono::duration_cast<WallTime::duration>(Elapsed() - begin_elapsed_);
  }
  MonotonicTime Monotonic() const override { return machine_.Monotonic(); }
  std::chrono::nanoseconds Elapsed() const override { return machine_.Elapsed(); }

  // By how much the machine's clock is ahead of this one: it was set meanwhile.
  std::chrono::nanoseconds Drift() const { return machine_.Wall() - Wall(); }

 private:
  const Clock& machine_;
  const WallTime begin_;
  const std::chrono::nanoseconds begin_elapsed_;
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
  std::chrono::nanoseconds Elapsed() const override { return Monotonic().time_since_epoch(); }
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
