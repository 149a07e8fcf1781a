// SPDX-License-Identifier: Apache-2.0
#include "worker/train/checkpointer.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

using std::chrono::minutes;

TEST(CheckpointDueTest, BySteps_AtTheirMultiples) {
  const CheckpointOptions options = {.every_steps = 10};
  EXPECT_FALSE(CheckpointDue(options, 9, minutes(1000)));
  EXPECT_TRUE(CheckpointDue(options, 10, minutes(0)));
  EXPECT_FALSE(CheckpointDue(options, 11, minutes(1000)));
}

TEST(CheckpointDueTest, ByTime_SinceTheLast) {
  const CheckpointOptions options = {.every_minutes = 1.5};
  EXPECT_FALSE(CheckpointDue(options, 1, std::chrono::seconds(89)));
  EXPECT_TRUE(CheckpointDue(options, 1, std::chrono::seconds(90)));
}

TEST(CheckpointDueTest, Neither_Never) { EXPECT_FALSE(CheckpointDue({}, 1'000'000, minutes(1'000'000))); }

}  // namespace
}  // namespace temper
