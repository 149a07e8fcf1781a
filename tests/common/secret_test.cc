// SPDX-License-Identifier: Apache-2.0
#include "common/secret.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace temper {
namespace {

TEST(Secret, New_Is256BitsInHexAndNeverTheSame) {
  std::set<std::string> secrets;
  for (int i = 0; i < 1000; ++i) {
    const std::string secret = NewSecret();
    EXPECT_THAT(secret, testing::MatchesRegex("[0-9a-f]+"));
    EXPECT_EQ(secret.size(), 64u);
    secrets.insert(secret);
  }
  EXPECT_EQ(secrets.size(), 1000u);
}

TEST(Secret, Equal_LooksAtEveryByteAndTheLength) {
  EXPECT_TRUE(EqualSecrets("", ""));
  EXPECT_TRUE(EqualSecrets("abc", "abc"));
  EXPECT_FALSE(EqualSecrets("abc", "abd"));
  EXPECT_FALSE(EqualSecrets("abc", "xbc"));
  EXPECT_FALSE(EqualSecrets("abc", "abcd"));
  EXPECT_FALSE(EqualSecrets("abc", ""));
}

}  // namespace
}  // namespace temper
