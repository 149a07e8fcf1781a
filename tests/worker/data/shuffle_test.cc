// SPDX-License-Identifier: Apache-2.0
#include "worker/data/shuffle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

namespace temper {
namespace {

using ::testing::ElementsAre;

TEST(ShuffledOrder, IsAPermutation) {
  for (int64_t size : {0, 1, 2, 3, 1000}) {
    std::vector<int64_t> order = ShuffledOrder(size, 1, 2);
    std::sort(order.begin(), order.end());
    std::vector<int64_t> expected(size);
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(order, expected);
  }
}

// A resumed run on another machine or build must see the same order: these figures never change.
TEST(ShuffledOrder, IsTheSameEverywhere) {
  EXPECT_THAT(ShuffledOrder(8, 0, 0), ElementsAre(5, 4, 7, 1, 2, 6, 3, 0));
  EXPECT_THAT(ShuffledOrder(8, 42, 3), ElementsAre(7, 0, 6, 1, 4, 5, 2, 3));
}

TEST(ShuffledOrder, SeedAndEpochChangeIt) {
  const std::vector<int64_t> order = ShuffledOrder(100, 7, 0);
  EXPECT_EQ(order, ShuffledOrder(100, 7, 0));
  EXPECT_NE(order, ShuffledOrder(100, 7, 1));
  EXPECT_NE(order, ShuffledOrder(100, 8, 0));
}

TEST(ShuffledOrder, AllPermutationsAreAboutEquallyLikely) {
  std::map<std::vector<int64_t>, int> counts;
  for (int64_t epoch = 0; epoch < 24'000; ++epoch) ++counts[ShuffledOrder(4, 5, epoch)];
  ASSERT_EQ(counts.size(), 24);
  // 1000 each, standard deviation 31.
  for (const auto& [order, count] : counts) EXPECT_NEAR(count, 1000, 150);
}

}  // namespace
}  // namespace temper
