// SPDX-License-Identifier: Apache-2.0
#include "server/web/event_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace temper {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using testing::ElementsAre;

TEST(EventFeed, News_NamesEachJobOnce) {
  EventFeed feed;
  const int64_t before = feed.version();
  for (const char* job : {"jobs/b", "jobs/a", "jobs/b"}) feed.OnEvent(job);
  const EventFeed::News news = feed.Wait(before, hours(1));
  EXPECT_THAT(news.jobs, ElementsAre("jobs/a", "jobs/b"));
  EXPECT_FALSE(news.missed);
  EXPECT_THAT(feed.Wait(before + 2, hours(1)).jobs, ElementsAre("jobs/b"));
}

TEST(EventFeed, NoNews_WaitsNoLongerThanItMay) {
  EventFeed feed;
  const EventFeed::News news = feed.Wait(feed.version(), milliseconds(1));
  EXPECT_TRUE(news.jobs.empty());
  EXPECT_FALSE(news.stopping);
}

TEST(EventFeed, TooLongAgo_SaysThatSomeWereMissed) {
  EventFeed feed;
  for (int i = 0; i < 10'000; ++i) feed.OnEvent("jobs/a");
  EXPECT_TRUE(feed.Wait(0, hours(1)).missed);
  EXPECT_FALSE(feed.Wait(9'000, hours(1)).missed);
}

TEST(EventFeed, Stop_EndsWaits) {
  EventFeed feed;
  std::thread waits([&] {
    EXPECT_TRUE(feed.Wait(feed.version(), hours(1)).stopping);
    feed.Pause(hours(1));
  });
  EXPECT_FALSE(feed.stopping());
  feed.Stop();
  waits.join();
  EXPECT_TRUE(feed.stopping());
}

}  // namespace
}  // namespace temper
