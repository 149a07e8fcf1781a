// SPDX-License-Identifier: Apache-2.0
#include "client/suggestion.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

const std::vector<std::string> kFields = {"learning_rate", "schedule", "steps", "epochs"};

TEST(ClosestName, Typo_FindsTheName) {
  EXPECT_EQ(ClosestName("learning_rat", kFields), "learning_rate");
  EXPECT_EQ(ClosestName("lerning-rate", kFields), "learning_rate");
  EXPECT_EQ(ClosestName("Stpes", kFields), "steps");
  EXPECT_EQ(ClosestName("step", kFields), "steps");
}

TEST(ClosestName, NothingNear_IsEmpty) {
  EXPECT_EQ(ClosestName("batch_size", kFields), std::nullopt);
  EXPECT_EQ(ClosestName("", kFields), std::nullopt);
  EXPECT_EQ(ClosestName(std::string(5000, 'x'), kFields), std::nullopt);
  EXPECT_EQ(ClosestName("steps", {}), std::nullopt);
}

}  // namespace
}  // namespace temper
