// SPDX-License-Identifier: Apache-2.0
#include "common/clock.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

using std::chrono::hours;
using std::chrono::nanoseconds;
using std::chrono::seconds;

TEST(SteadyClock, NobodySetsTheClock_IsTheMachines) {
  FakeClock machine;
  const SteadyClock clock(machine);
  EXPECT_EQ(clock.Wall(), machine.Wall());
  machine.Advance(seconds(90));
  EXPECT_EQ(clock.Wall(), machine.Wall());
  EXPECT_EQ(clock.Monotonic(), machine.Monotonic());
  EXPECT_EQ(clock.Drift(), nanoseconds(0));
}

TEST(SteadyClock, MachinesClockIsSet_GoesOnEvenly) {
  FakeClock machine;
  const SteadyClock clock(machine);
  const WallTime begin = clock.Wall();
  machine.Advance(seconds(10));
  machine.SetWall(machine.Wall() + hours(24));
  machine.Advance(seconds(10));
  EXPECT_EQ(clock.Wall(), begin + seconds(20));
  EXPECT_EQ(clock.Drift(), hours(24));
  machine.SetWall(machine.Wall() - hours(48));
  EXPECT_EQ(clock.Wall(), begin + seconds(20));
  EXPECT_EQ(clock.Drift(), hours(-24));
}

TEST(RealClock, Elapsed_GoesOn) {
  const RealClock clock;
  const nanoseconds begin = clock.Elapsed();
  const MonotonicTime monotonic = clock.Monotonic();
  while (clock.Monotonic() - monotonic < std::chrono::milliseconds(2)) {
  }
  EXPECT_GE(clock.Elapsed() - begin, std::chrono::milliseconds(2));
  EXPECT_GT(begin, nanoseconds(0));
}

}  // namespace
}  // namespace temper
