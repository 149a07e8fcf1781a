// SPDX-License-Identifier: Apache-2.0
#include "server/web/assets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace temper {
namespace {

TEST(Assets, Index_NamesAllOthersAndNothingElsewhere) {
  const auto assets = Assets();
  ASSERT_EQ(assets.size(), 4);
  const std::string index(assets.front().text);
  EXPECT_EQ(assets.front().name, "index.html");
  for (const Asset& asset : assets.subspan(1)) {
    EXPECT_THAT(index, testing::HasSubstr("\"/assets/" + std::string(asset.name) + "\""));
    EXPECT_LT(asset.gzip.size(), asset.text.size());
  }
  // What a page loads from elsewhere tells others who looks at it.
  EXPECT_THAT(index, testing::Not(testing::HasSubstr("://")));
}

}  // namespace
}  // namespace temper
