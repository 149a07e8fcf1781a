// SPDX-License-Identifier: Apache-2.0
#include "server/launch/worker_environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper {
namespace {

TEST(WorkerEnvironment, Select_KeepsWhatWorkersReadAndNothingElse) {
  std::vector<std::string> entries = {"PATH=/bin",
                                      "PATHS=x",
                                      "LC_ALL=C",
                                      "AWS_SECRET_ACCESS_KEY=a=b",
                                      "MY_AWS_KEY=x",
                                      "DATABASE_URL=postgres://u:p@h/d",
                                      "TEMPER_TOKEN=of-a-user",
                                      "TEMPER_WORKER_TOKEN=of-another-gang",
                                      "TEMPER_SERVER=h:1",
                                      "TEMPER_PYTHON=/python",
                                      "CUDA_VISIBLE_DEVICES=0",
                                      "CUDA_LAUNCH_BLOCKING=1",
                                      "https_proxy=",
                                      "without-a-value"};
  std::vector<char*> environment;
  for (std::string& entry : entries) environment.push_back(entry.data());
  environment.push_back(nullptr);
  EXPECT_THAT(WorkerEnvironment().Select(environment.data()),
              testing::ElementsAre("PATH=/bin", "LC_ALL=C", "AWS_SECRET_ACCESS_KEY=a=b", "TEMPER_PYTHON=/python",
                                   "CUDA_LAUNCH_BLOCKING=1", "https_proxy="));
}

TEST(WorkerEnvironment, Added_ArePassedBesides) {
  const WorkerEnvironment environment({"DATABASE_URL", "TEAM_*"});
  for (const char* name : {"DATABASE_URL", "TEAM_", "TEAM_A", "HOME"}) EXPECT_TRUE(environment.Passes(name)) << name;
  for (const char* name : {"DATABASE_URLS", "MY_TEAM_A", "TEAM"}) EXPECT_FALSE(environment.Passes(name)) << name;
}

TEST(WorkerEnvironment, AddedEverything_StillHasNoTokenAndNothingOfAnotherGang) {
  const WorkerEnvironment environment({"*"});
  EXPECT_TRUE(environment.Passes("DATABASE_URL"));
  for (const char* name : {"TEMPER_TOKEN", "TEMPER_WORKER_TOKEN", "TEMPER_RUN_DIR", "CUDA_VISIBLE_DEVICES"}) {
    EXPECT_FALSE(environment.Passes(name)) << name;
  }
}

TEST(WorkerEnvironment, CheckPattern_RefusesWhatIsNoName) {
  for (const char* pattern : {"A", "A_1", "TEAM_*", "*"}) EXPECT_TRUE(WorkerEnvironment::CheckPattern(pattern).ok());
  for (const char* pattern : {"", "A=b", "*A", "A*B", "A B", "TEMPER_TOKEN", "CUDA_VISIBLE_DEVICES"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(WorkerEnvironment::CheckPattern(pattern))) << pattern;
  }
}

TEST(WorkerEnvironment, Patterns_AreNames) {
  for (const std::string_view pattern : WorkerEnvironment::Patterns()) {
    EXPECT_TRUE(WorkerEnvironment::CheckPattern(pattern).ok()) << pattern;
  }
}

}  // namespace
}  // namespace temper
