// SPDX-License-Identifier: Apache-2.0
#include "client/transfer_place.h"

#include <gtest/gtest.h>

#include <thread>

#include "common/rpc/status.h"

namespace temper {
namespace {

const absl::Status kNoPlace = WithReason(absl::ResourceExhaustedError("all are taken"), "TOO_MANY_STREAMS");

struct Awaited {
  absl::Status status;
  int attempts = 0;
  int waits = 0;
};

Awaited Await(const PlaceOptions& options, absl::FunctionRef<absl::Status(int attempt)> transfer) {
  Awaited awaited;
  awaited.status =
      AwaitPlace(options, [&] { return transfer(++awaited.attempts); }, [&](const absl::Status&) { ++awaited.waits; });
  return awaited;
}

TEST(AwaitPlace, NoPlaceAtFirst_IsTriedAgainAndToldOnce) {
  const Awaited awaited = Await({}, [](int attempt) { return attempt < 3 ? kNoPlace : absl::OkStatus(); });
  EXPECT_TRUE(awaited.status.ok()) << awaited.status;
  EXPECT_EQ(awaited.attempts, 3);
  EXPECT_EQ(awaited.waits, 1);
}

TEST(AwaitPlace, NoneWithinThePatience_EndsWithTheServersWord) {
  const Awaited awaited = Await({.patience = absl::Milliseconds(1)}, [](int) { return kNoPlace; });
  EXPECT_EQ(awaited.status, kNoPlace);
  EXPECT_EQ(awaited.attempts, 2);
}

TEST(AwaitPlace, AnotherError_IsTheTransfersOwn) {
  const absl::Status full = absl::ResourceExhaustedError("the disk is full");
  const Awaited awaited = Await({}, [&](int) { return full; });
  EXPECT_EQ(awaited.status, full);
  EXPECT_EQ(awaited.attempts, 1);
  EXPECT_EQ(awaited.waits, 0);
}

TEST(AwaitPlace, ToldToStop_WaitsNoLonger) {
  std::stop_source stop;
  const Awaited awaited = Await({.stop = stop.get_token()}, [&](int) {
    stop.request_stop();
    return kNoPlace;
  });
  EXPECT_TRUE(absl::IsCancelled(awaited.status)) << awaited.status;
  EXPECT_EQ(awaited.attempts, 1);
}

}  // namespace
}  // namespace temper
