// SPDX-License-Identifier: Apache-2.0
#include "client/command/exit_code.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace temper::command {
namespace {

TEST(ExitCode, Statuses_KeepTheirNumbers) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), 3);
  EXPECT_EQ(ExitCodeOf(absl::AlreadyExistsError("")), 3);
  EXPECT_EQ(ExitCodeOf(absl::FailedPreconditionError("")), 3);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), 4);
  EXPECT_EQ(ExitCodeOf(v1::JOB_STATE_SUCCEEDED), 0);
  EXPECT_EQ(ExitCodeOf(v1::JOB_STATE_FAILED), 5);
  EXPECT_EQ(ExitCodeOf(v1::JOB_STATE_CANCELLED), 5);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), 6);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), 6);
  EXPECT_EQ(ExitCodeOf(absl::CancelledError("")), 7);
  EXPECT_EQ(ExitCodeOf(absl::DataLossError("")), 7);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), 7);
}

TEST(ExitCode, Help_ListsEveryNumber) {
  std::vector<int> listed;
  for (const absl::string_view line : absl::StrSplit(kExitCodeHelp, '\n')) {
    int code = 0;
    if (absl::SimpleAtoi(line.substr(0, line.find_first_not_of("0123456789 ")), &code)) listed.push_back(code);
  }
  EXPECT_THAT(listed, testing::ElementsAre(kExitOk, kExitUsage, kExitRefused, kExitNotFound, kExitJobEndedBad,
                                           kExitUnreachable, kExitOther));
}

}  // namespace
}  // namespace temper::command
