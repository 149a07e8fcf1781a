// SPDX-License-Identifier: Apache-2.0
#include "worker/node/rank_end.h"

#include <sys/wait.h>

#include <csignal>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace temper {
namespace {

using testing::AllOf;
using testing::HasSubstr;

int Exited(int status) { return W_EXITCODE(status, 0); }
int Killed(int signal) { return W_EXITCODE(0, signal); }

TEST(RankEndTest, ExplainDeath_ExitStatus_IsToldWithTheLastErrors) {
  const v1::RankEnd end = ExplainDeath({{Exited(7), {"first", "second"}}});
  EXPECT_EQ(end.cause(), v1::FAILURE_CAUSE_RANK_LOST);
  EXPECT_EQ(end.exit_status(), 7);
  EXPECT_THAT(end.message(), AllOf(HasSubstr("exit status 7"), HasSubstr("first\nsecond")));
}

TEST(RankEndTest, ExplainDeath_Signal_IsNamed) {
  const v1::RankEnd end = ExplainDeath({{Killed(SIGSEGV), {}}});
  EXPECT_EQ(end.cause(), v1::FAILURE_CAUSE_RANK_LOST);
  EXPECT_EQ(end.exit_status(), -SIGSEGV);
  EXPECT_THAT(end.message(), AllOf(HasSubstr("SIGSEGV"), HasSubstr("wrote nothing to stderr")));
}

TEST(RankEndTest, ExplainDeath_SigkillAlone_DoesNotAccuseMemory) {
  EXPECT_EQ(ExplainDeath({{Killed(SIGKILL), {}}, /*oom_killed=*/false}).cause(), v1::FAILURE_CAUSE_RANK_LOST);
}

TEST(RankEndTest, ExplainDeath_SigkillAndOomKill_IsOutOfMemory) {
  const v1::RankEnd end = ExplainDeath({{Killed(SIGKILL), {}}, /*oom_killed=*/true});
  EXPECT_EQ(end.cause(), v1::FAILURE_CAUSE_OUT_OF_MEMORY);
  EXPECT_THAT(end.message(), HasSubstr("micro_batch_tokens"));
}

TEST(RankEndTest, ExplainDeath_OomKillOfAnotherProcess_IsNotTakenForOurs) {
  EXPECT_EQ(ExplainDeath({{Killed(SIGSEGV), {}}, /*oom_killed=*/true}).cause(), v1::FAILURE_CAUSE_RANK_LOST);
}

TEST(RankEndTest, ExplainDeath_BadAlloc_IsOutOfMemory) {
  const v1::RankEnd end =
      ExplainDeath({{Killed(SIGABRT), {"terminate called after throwing an instance of 'std::bad_alloc'"}}});
  EXPECT_EQ(end.cause(), v1::FAILURE_CAUSE_OUT_OF_MEMORY);
}

TEST(RankEndTest, ExplainDeath_MuchOnStderr_ShowsTheEnd) {
  const std::string message = ExplainDeath({{Exited(1), {std::string(8192, 'a'), std::string(8192, 'b')}}}).message();
  EXPECT_LT(message.size(), 5000);
  EXPECT_EQ(message.back(), 'b');
}

TEST(RankEndTest, ExplainDeath_GarbageOnStderr_IsStillUtf8) {
  v1::RankEnd parsed;
  EXPECT_TRUE(parsed.ParseFromString(ExplainDeath({{Exited(1), {"\xFF\xFE"}}}).SerializeAsString()));
}

}  // namespace
}  // namespace temper
