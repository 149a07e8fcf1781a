// SPDX-License-Identifier: Apache-2.0
#include "worker/data/packer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "worker/data/shuffle.h"

namespace temper {
namespace {

using ::testing::ElementsAre;

std::vector<std::vector<int64_t>> Pack(const std::vector<int64_t>& lengths, int64_t capacity,
                                       int64_t window = Packer::kWindow) {
  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  Packer packer(order, [&](int64_t sample) { return lengths[sample]; }, capacity, window);
  std::vector<std::vector<int64_t>> rows;
  for (std::vector<int64_t> row = packer.NextRow(); !row.empty(); row = packer.NextRow()) rows.push_back(row);
  EXPECT_TRUE(packer.NextRow().empty());
  return rows;
}

TEST(Packer, OldestFirst_ThenTheLongestThatFits) {
  EXPECT_THAT(Pack({5, 3, 6, 5, 4, 1}, 10), ElementsAre(ElementsAre(0, 3), ElementsAre(1, 2, 5), ElementsAre(4)));
}

TEST(Packer, EqualLengths_GoInOrder) {
  EXPECT_THAT(Pack({2, 2, 2, 2}, 4), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3)));
}

TEST(Packer, Window_HidesLaterSamples) {
  // The 5 would fit best, but stands outside the window of two.
  EXPECT_THAT(Pack({5, 4, 5}, 10, 2), ElementsAre(ElementsAre(0, 1), ElementsAre(2)));
}

TEST(Packer, FullRows_StandAlone) {
  EXPECT_THAT(Pack({10, 10, 1}, 10), ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(2)));
}

TEST(Packer, NoSamples_NoRows) { EXPECT_TRUE(Pack({}, 10).empty()); }

TEST(Packer, ManySamples_EachOnceNeverTooFullAndDense) {
  constexpr int64_t kCapacity = 1024;
  std::vector<int64_t> lengths;
  int64_t tokens = 0;
  // Short chats with a long tail.
  for (const int64_t x : ShuffledOrder(20'000, 1, 0)) {
    lengths.push_back(std::min<int64_t>(kCapacity, 2'000'000 / (x + 2000) - 85));
    tokens += lengths.back();
  }
  std::vector<int> seen(lengths.size(), 0);
  const std::vector<std::vector<int64_t>> rows = Pack(lengths, kCapacity);
  for (const std::vector<int64_t>& row : rows) {
    int64_t used = 0;
    for (const int64_t sample : row) {
      used += lengths[sample];
      ++seen[sample];
    }
    ASSERT_LE(used, kCapacity);
  }
  for (const int times : seen) ASSERT_EQ(times, 1);
  EXPECT_LT(1.0 - static_cast<double>(tokens) / static_cast<double>(rows.size() * kCapacity), 0.01);
}

}  // namespace
}  // namespace temper
