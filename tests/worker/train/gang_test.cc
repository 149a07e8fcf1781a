// SPDX-License-Identifier: Apache-2.0
// The steps of a gang are compared with those of one rank in test_gang.py.
#include "worker/train/gang.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/worker/parallel/gang.h"
#include "worker/model/transformer.h"

namespace temper {
namespace {

using testing::ElementsAre;

// Rows of 1, 2, … tokens.
std::vector<MicroBatch> Rows(int64_t count) {
  std::vector<MicroBatch> rows(count);
  for (int64_t i = 0; i < count; ++i) rows[i].tokens_T.assign(i + 1, 7);
  return rows;
}

std::vector<int64_t> Lengths(const std::vector<MicroBatch>& rows) {
  std::vector<int64_t> lengths;
  for (const MicroBatch& row : rows) lengths.push_back(row.num_tokens());
  return lengths;
}

// Runs `rank` as every rank of a gang of three.
void RunThree(const std::function<void(const Gang&)>& rank) {
  RunGang(3, [&](ProcessGroup& group) {
    ModelConfig config;
    config.hidden_size = 8;
    config.num_layers = 1;
    config.vocab_size = 64;
    config.attention = {.num_heads = 1, .num_kv_heads = 1, .head_dim = 8, .scale = 1};
    config.feed_forward.intermediate_size = 8;
    Transformer model(config, {});
    ShardedModel sharded(model, group);
    rank(Gang(group, sharded));
  });
}

TEST(Gang, Alone_KeepsAllAndSettlesNothing) {
  const Gang gang;
  EXPECT_EQ(gang.size(), 1);
  EXPECT_THAT(Lengths(gang.ShareOf(Rows(3))), ElementsAre(1, 2, 3));
  EXPECT_EQ(gang.Settle({.gradient_norm = 0.1}).gradient_norm, 0.1);
  EXPECT_TRUE(gang.Settle({.compute_seconds = 1}).rank_compute_seconds.empty());
}

TEST(Gang, RowsThatDoNotGoRound_LeaveSomeRanksAnEmptyOne) {
  RunThree([](const Gang& gang) {
    const std::vector<int64_t> expected[] = {{1, 4}, {2, 5}, {3, 0}};
    EXPECT_EQ(Lengths(gang.ShareOf(Rows(5))), expected[gang.rank()]);
    EXPECT_TRUE(gang.ShareOf({}).empty());
  });
}

TEST(Gang, Settle_AddsUpAndAsksAll) {
  RunThree([](const Gang& gang) {
    const Gang::Step step = gang.Settle({.loss = 1.0 + gang.rank(),
                                         .gradient_norm = gang.rank() == 0   ? 3.0
                                                          : gang.rank() == 1 ? 4.0
                                                                             : 0.0,
                                         .stop = gang.rank() == 2,
                                         .compute_seconds = 2.0 + gang.rank()});
    EXPECT_EQ(step.loss, 6);
    EXPECT_THAT(step.rank_compute_seconds, ElementsAre(2, 3, 4));
    EXPECT_EQ(step.gradient_norm, 5);
    EXPECT_TRUE(step.stop);
    EXPECT_FALSE(step.time_is_up);
  });
}

TEST(Gang, Settle_GoesByRankZerosClock) {
  RunThree([](const Gang& gang) {
    EXPECT_FALSE(gang.Settle({.time_is_up = gang.rank() != 0}).time_is_up);
    EXPECT_TRUE(gang.Settle({.time_is_up = gang.rank() == 0}).time_is_up);
  });
}

}  // namespace
}  // namespace temper
