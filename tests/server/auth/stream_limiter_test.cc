// SPDX-License-Identifier: Apache-2.0
#include "server/auth/stream_limiter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace temper {
namespace {

// Of those that the caller may open now, while it keeps them all.
int Entered(StreamLimiter& limiter, const std::string& caller, std::vector<std::unique_ptr<StreamPlace>>& places) {
  int entered = 0;
  for (auto place = limiter.Enter(caller); place.ok(); place = limiter.Enter(caller)) {
    places.push_back(*std::move(place));
    ++entered;
  }
  return entered;
}

TEST(StreamLimiter, Enter_EachCallerHasItsOwnPlaces) {
  StreamLimiter limiter({.what = "downloads", .per_caller = 3, .of_all = 100, .option = "--max-downloads"});
  std::vector<std::unique_ptr<StreamPlace>> places;
  EXPECT_EQ(Entered(limiter, "ana", places), 3);
  EXPECT_EQ(Entered(limiter, "ben", places), 3);
  const absl::Status refused = limiter.Enter("ana").status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_EQ(refused.message(),
            "ana has as many downloads open as one caller may at a time, 3 (temper-server --max-downloads): end one "
            "first");
}

TEST(StreamLimiter, PlaceIsGone_AnotherMayEnter) {
  StreamLimiter limiter({.what = "downloads", .per_caller = 2, .of_all = 100});
  std::vector<std::unique_ptr<StreamPlace>> places;
  EXPECT_EQ(Entered(limiter, "ana", places), 2);
  places.pop_back();
  EXPECT_EQ(Entered(limiter, "ana", places), 1);
  places.clear();
  EXPECT_EQ(Entered(limiter, "ana", places), 2);
}

TEST(StreamLimiter, AllTogether_AreBounded) {
  StreamLimiter limiter({.what = "downloads", .per_caller = 3, .of_all = 4});
  std::vector<std::unique_ptr<StreamPlace>> anas, bens;
  EXPECT_EQ(Entered(limiter, "ana", anas), 3);
  EXPECT_EQ(Entered(limiter, "ben", bens), 1);
  EXPECT_THAT(std::string(limiter.Enter("ben").status().message()),
              testing::StartsWith("all callers together have as many downloads open"));
  anas.pop_back();
  EXPECT_EQ(Entered(limiter, "ben", bens), 1);
}

}  // namespace
}  // namespace temper
