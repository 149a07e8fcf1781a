// SPDX-License-Identifier: Apache-2.0
#include "server/auth/call_limiter.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

int Taken(CallLimiter& limiter, const std::string& identity) {
  int taken = 0;
  while (taken < 1000 && limiter.Take(identity)) ++taken;
  return taken;
}

TEST(CallLimiter, Take_TwiceTheRateAtOnce_ThenTheRate) {
  FakeClock clock;
  CallLimiter limiter(10, clock);
  EXPECT_EQ(Taken(limiter, "ana"), 20);
  clock.Advance(std::chrono::milliseconds(550));
  EXPECT_EQ(Taken(limiter, "ana"), 5);
  clock.Advance(std::chrono::hours(1));
  EXPECT_EQ(Taken(limiter, "ana"), 20);
}

TEST(CallLimiter, Take_EachIdentityHasItsOwn) {
  FakeClock clock;
  CallLimiter limiter(10, clock);
  EXPECT_EQ(Taken(limiter, "ana"), 20);
  EXPECT_EQ(Taken(limiter, "ben"), 20);
}

TEST(CallLimiter, Take_LessThanOneASecond_IsOneAtATime) {
  FakeClock clock;
  CallLimiter limiter(0.25, clock);
  EXPECT_EQ(Taken(limiter, "ana"), 1);
  clock.Advance(std::chrono::seconds(4));
  EXPECT_EQ(Taken(limiter, "ana"), 1);
}

TEST(CallLimiter, Take_NoRate_IsNoLimit) {
  FakeClock clock;
  CallLimiter limiter(0, clock);
  EXPECT_EQ(Taken(limiter, "ana"), 1000);
}

}  // namespace
}  // namespace temper
