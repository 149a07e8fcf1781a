// SPDX-License-Identifier: Apache-2.0
#include "worker/node/rank_process.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace temper {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Runs a shell script as the rank.
class RankProcessTest : public testing::Test {
 protected:
  std::string Script(const std::string& body) {
    const std::string path =
        testing::TempDir() + "rank_process_" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".sh";
    std::ofstream(path) << "#!/bin/bash\n" << body;
    chmod(path.c_str(), 0755);
    return path;
  }

  RankProcess::Events Events() {
    return {.on_report = [this](v1::RankReport report) { reports_.push_back(std::move(report)); },
            .on_line =
                [this](v1::LogSeverity severity, const std::string& line) {
                  (severity == v1::LOG_SEVERITY_INFO ? out_ : err_).push_back(line);
                },
            .on_exit = [this](const RankExit& exit) { exit_.set_value(exit); }};
  }

  // Filled by the process's thread before exit_, read by the test after it.
  std::vector<v1::RankReport> reports_;
  std::vector<std::string> out_;
  std::vector<std::string> err_;
  std::promise<RankExit> exit_;
};

TEST_F(RankProcessTest, Start_ScriptThatPrintsAndFails_GivesLinesAndStatus) {
  auto process = RankProcess::Start(Script("echo one; echo two >&2; echo -n three; exit 5"), Events());
  ASSERT_TRUE(process.ok()) << process.status();
  const RankExit exit = exit_.get_future().get();
  EXPECT_EQ(WEXITSTATUS(exit.wait_status), 5);
  EXPECT_THAT(out_, ElementsAre("one", "three"));
  EXPECT_THAT(err_, ElementsAre("two"));
  EXPECT_THAT(exit.last_errors, ElementsAre("two"));
}

TEST_F(RankProcessTest, Start_MuchOutput_KeepsTheTailOnly) {
  auto process = RankProcess::Start(Script("for i in $(seq 1000); do echo line $i >&2; done"), Events());
  ASSERT_TRUE(process.ok()) << process.status();
  const RankExit exit = exit_.get_future().get();
  EXPECT_EQ(err_.size(), 1000);
  EXPECT_EQ(exit.last_errors.size(), 20);
  EXPECT_EQ(exit.last_errors.back(), "line 1000");
}

TEST_F(RankProcessTest, Start_NoSuchBinary_SaysWhichAndWhy) {
  const auto process = RankProcess::Start("/nonexistent/temper-rank", Events());
  EXPECT_THAT(std::string(process.status().message()), HasSubstr("/nonexistent/temper-rank: No such file"));
}

TEST_F(RankProcessTest, Start_NotExecutable_SaysWhy) {
  const std::string path = Script("");
  chmod(path.c_str(), 0644);
  EXPECT_THAT(std::string(RankProcess::Start(path, Events()).status().message()), HasSubstr("Permission denied"));
}

TEST_F(RankProcessTest, Start_Environment_HasTheSocketButNotTheToken) {
  setenv("TEMPER_WORKER_TOKEN", "secret", 1);
  auto process = RankProcess::Start(
      Script("echo \"token=$TEMPER_WORKER_TOKEN\"; [ -S /proc/self/fd/$TEMPER_RANK_FD ] && echo socket"), Events());
  unsetenv("TEMPER_WORKER_TOKEN");
  ASSERT_TRUE(process.ok()) << process.status();
  exit_.get_future().get();
  EXPECT_THAT(out_, ElementsAre("token=", "socket"));
}

TEST_F(RankProcessTest, Start_Environment_SpinsALittleUnlessTheUserChooses) {
  const char* const chosen = std::getenv("OMP_WAIT_POLICY");  // of whoever runs the tests
  const std::string before = chosen == nullptr ? "" : chosen;
  for (const char* const policy : {"", "PASSIVE"}) {
    *policy == '\0' ? unsetenv("OMP_WAIT_POLICY") : setenv("OMP_WAIT_POLICY", policy, 1);
    exit_ = {};
    auto process = RankProcess::Start(Script("echo \"$GOMP_SPINCOUNT,$OMP_WAIT_POLICY\""), Events());
    ASSERT_TRUE(process.ok()) << process.status();
    exit_.get_future().get();
  }
  if (chosen != nullptr) setenv("OMP_WAIT_POLICY", before.c_str(), 1);
  EXPECT_THAT(out_, ElementsAre("5000,", ",PASSIVE"));
}

TEST_F(RankProcessTest, Start_TerminationBlockedInTheNode_IsNotBlockedInTheRank) {
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, &before);
  auto process = RankProcess::Start(Script("kill -TERM $$; echo alive"), Events());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(WTERMSIG(exit_.get_future().get().wait_status), SIGTERM);
}

TEST_F(RankProcessTest, Follow_RankSendsNonsense_IsKilled) {
  auto process = RankProcess::Start(Script("echo 'GET / HTTP/1.1' >&$TEMPER_RANK_FD; sleep 1000"), Events());
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(WTERMSIG(exit_.get_future().get().wait_status), SIGKILL);
  EXPECT_TRUE(reports_.empty());
}

TEST_F(RankProcessTest, Destructor_RunningProcess_KillsIt) {
  auto process = RankProcess::Start(Script("exec sleep 1000"), Events());
  ASSERT_TRUE(process.ok()) << process.status();
  process->reset();
  EXPECT_EQ(WTERMSIG(exit_.get_future().get().wait_status), SIGKILL);
}

TEST_F(RankProcessTest, Start_StartingThreadEnds_KillsTheRank) {
  std::unique_ptr<RankProcess> process;
  std::thread([&] { process = *RankProcess::Start(Script("exec sleep 1000"), Events()); }).join();
  EXPECT_EQ(WTERMSIG(exit_.get_future().get().wait_status), SIGKILL);
}

}  // namespace
}  // namespace temper
