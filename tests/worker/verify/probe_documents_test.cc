// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/probe_documents.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace temper {
namespace {

using Texts = std::vector<std::string>;

ModelConfig WithWindows(std::vector<int64_t> windows) {
  ModelConfig config;
  for (const int64_t window : windows) config.layers.push_back({.window = window});
  return config;
}

ModelConfig WithRope(RopeConfig::Kind kind, int64_t original_max_positions) {
  ModelConfig config;
  config.ropes = {{.kind = kind, .original_max_positions = original_max_positions}};
  return config;
}

TEST(ProbeLengths, ReachBehindWindowsThatAreNear) {
  EXPECT_EQ(ProbeLengths({}).front(), 200);
  EXPECT_EQ(ProbeLengths(WithWindows({0, 24})).front(), 200);
  EXPECT_EQ(ProbeLengths(WithWindows({24, 512, 4096})).front(), 520);
  EXPECT_EQ(NotExercised(WithWindows({24, 512, 4096}), 520), Texts{"the window of 4096 tokens"});
  EXPECT_EQ(NotExercised(WithWindows({512}), 512), Texts{"the window of 512 tokens"});
  EXPECT_EQ(NotExercised(WithWindows({512}), 513), Texts{});
}

TEST(ProbeLengths, ReachBehindPositionsThatChangeFrequencies) {
  const ModelConfig longrope = WithRope(RopeConfig::Kind::kLongRope, 1024);
  EXPECT_EQ(ProbeLengths(longrope).front(), 1032);
  EXPECT_EQ(LongestPadded(longrope), 1024);
  EXPECT_EQ(NotExercised(WithRope(RopeConfig::Kind::kDynamic, 4096), 200), Texts{"frequencies behind position 4096"});
  // YaRN's do not depend on the document.
  const ModelConfig yarn = WithRope(RopeConfig::Kind::kYarn, 1024);
  EXPECT_EQ(ProbeLengths(yarn).front(), 200);
  EXPECT_GT(LongestPadded(yarn), 1'000'000);
}

TEST(RandomDocuments, FollowTheSeedAndStayInTheVocabulary) {
  const auto first = RandomDocuments(7, {100, 1}, 1), again = RandomDocuments(7, {100, 1}, 1);
  ASSERT_EQ(first.size(), 2);
  EXPECT_EQ(first[1].size(0), 1);
  EXPECT_EQ(first[0].scalar_type(), at::kLong);
  EXPECT_TRUE(at::equal(first[0], again[0]));
  EXPECT_FALSE(at::equal(first[0], RandomDocuments(7, {100}, 2)[0]));
  EXPECT_EQ(first[0].min().item<int64_t>(), 0);
  EXPECT_EQ(first[0].max().item<int64_t>(), 6);
}

}  // namespace
}  // namespace temper
