// SPDX-License-Identifier: Apache-2.0
#include "server/web/download_tickets.h"

#include <gtest/gtest.h>

#include "common/clock.h"

namespace temper {
namespace {

TEST(DownloadTickets, Ticket_LeadsToItsFileForAWhile) {
  FakeClock clock;
  DownloadTickets tickets(clock);
  const std::string one = tickets.Issue({.parent = "jobs/a", .path = "x"});
  const std::string other = tickets.Issue({.parent = "jobs/a", .path = "y"});
  EXPECT_NE(one, other);
  EXPECT_EQ(one.size(), 64);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tickets.Find(one)->path, "x");
  EXPECT_EQ(tickets.Find(other)->path, "y");
  EXPECT_FALSE(tickets.Find(std::string(64, '0')));
  clock.Advance(std::chrono::minutes(10));
  EXPECT_FALSE(tickets.Find(one));
}

TEST(DownloadTickets, TicketInUse_StaysGoodForADayAtMost) {
  FakeClock clock;
  DownloadTickets tickets(clock);
  const std::string ticket = tickets.Issue({.parent = "jobs/a", .path = "x"});
  for (int minutes = 9; minutes < 24 * 60; minutes += 9) {
    clock.Advance(std::chrono::minutes(9));
    ASSERT_TRUE(tickets.Find(ticket)) << minutes;
  }
  clock.Advance(std::chrono::minutes(9));
  EXPECT_FALSE(tickets.Find(ticket));
}

TEST(DownloadTickets, TooMany_TheOldestGoes) {
  FakeClock clock;
  DownloadTickets tickets(clock);
  const std::string first = tickets.Issue({.parent = "jobs/a", .path = "x"});
  for (int i = 0; i < 4096; ++i) {
    clock.Advance(std::chrono::milliseconds(1));
    tickets.Issue({.parent = "jobs/a", .path = "y"});
  }
  EXPECT_FALSE(tickets.Find(first));
}

}  // namespace
}  // namespace temper
