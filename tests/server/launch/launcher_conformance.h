// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "server/launch/launcher.h"

namespace temper {

// What the workers of a test do once they run.
enum class WorkerBehaviour {
  kRunUntilStopped,  // ends soon when asked to
  kIgnoreStop,       // has to be killed
  kExitAtOnce,       // without a word
  kLeaveRecord,      // exits, leaving the record {"exit_status": 1, "cause": "STORAGE", "message": "disk full"}
  kLoseNode1,        // node 1 exits at once, without a word; the others run until they are stopped
  kLeaveDescendant,  // exits, while something that it started runs on and ignores requests to end
};

// What a launcher must bring for the suite: one class per implementation.
class LauncherHarness {
 public:
  virtual ~LauncherHarness() = default;
  // A launcher as a fresh server process would have it, whose grace period is short. Those made before are gone or will
  // not be used any more; their gangs run on.
  virtual std::unique_ptr<Launcher> NewLauncher(WorkerBehaviour behaviour) = 0;
  // One whose gangs can't be started.
  virtual std::unique_ptr<Launcher> NewBrokenLauncher() = 0;
  virtual std::filesystem::path RunDir(const GangKey& key) = 0;
  // Whether anything that belongs to the gang runs (a zombie does not).
  virtual bool IsRunning(const GangKey& key) = 0;
  // Blocks until the gang's first worker does what its behaviour says.
  virtual void AwaitRunning(const GangKey& key) = 0;
};

// Collects what a launcher reports.
class ExitLog {
 public:
  void Follow(Launcher& launcher) { launcher.OnExit(Callback(), NodeCallback()); }
  Launcher::ExitCallback Callback() {
    return [this](const GangExit& exit) {
      std::lock_guard lock(mutex_);
      exits_.push_back(exit);
      changed_.notify_all();
    };
  }
  Launcher::NodeLossCallback NodeCallback() {
    return [this](const NodeLoss& exit) {
      std::lock_guard lock(mutex_);
      node_losses_.push_back(exit);
      changed_.notify_all();
    };
  }
  // The first node that is gone. Fails the test when none goes.
  NodeLoss FirstNode() {
    std::unique_lock lock(mutex_);
    const bool came = changed_.wait_for(lock, std::chrono::seconds(60), [this] { return !node_losses_.empty(); });
    EXPECT_TRUE(came) << "no node's exit was reported";
    return came ? node_losses_[0] : NodeLoss{};
  }
  // The next exit. Fails the test when none comes.
  GangExit Next() {
    std::unique_lock lock(mutex_);
    const bool came = changed_.wait_for(lock, std::chrono::seconds(60), [this] { return taken_ < exits_.size(); });
    EXPECT_TRUE(came) << "no exit was reported";
    return came ? exits_[taken_++] : GangExit{};
  }
  size_t count() const {
    std::lock_guard lock(mutex_);
    return exits_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<GangExit> exits_;
  std::vector<NodeLoss> node_losses_;
  size_t taken_ = 0;
};

using LauncherHarnessFactory = std::function<std::unique_ptr<LauncherHarness>()>;

// Every launcher passes these: INSTANTIATE_TEST_SUITE_P(Local, LauncherConformance, testing::Values(factory)).
class LauncherConformance : public testing::TestWithParam<LauncherHarnessFactory> {
 protected:
  void Use(WorkerBehaviour behaviour) {
    launcher = nullptr;
    launcher = harness->NewLauncher(behaviour);
    exits.Follow(*launcher);
  }
  GangSpec Spec(int32_t epoch = 1) {
    GangSpec spec;
    spec.key = {"conformance", epoch};
    spec.server_address = "127.0.0.1:1";
    spec.token = "secret";
    spec.run_dir = harness->RunDir(spec.key);
    return spec;
  }

  const std::unique_ptr<LauncherHarness> harness = GetParam()();
  ExitLog exits;
  std::unique_ptr<Launcher> launcher;
};

TEST_P(LauncherConformance, Launch_Stop_ReportsOneExitWithNothingLeft) {
  Use(WorkerBehaviour::kRunUntilStopped);
  const GangSpec spec = Spec();
  const auto handle = launcher->Launch(spec);
  ASSERT_TRUE(handle.ok()) << handle.status();
  EXPECT_FALSE(handle->empty());
  harness->AwaitRunning(spec.key);
  launcher->Stop(spec.key);
  launcher->Stop(spec.key);
  EXPECT_EQ(exits.Next().key, spec.key);
  EXPECT_FALSE(harness->IsRunning(spec.key));
  EXPECT_EQ(exits.count(), 1u);
}

TEST_P(LauncherConformance, Stop_WorkerThatIgnoresIt_IsKilledAfterTheGracePeriod) {
  Use(WorkerBehaviour::kIgnoreStop);
  const GangSpec spec = Spec();
  ASSERT_TRUE(launcher->Launch(spec).ok());
  harness->AwaitRunning(spec.key);
  launcher->Stop(spec.key);
  EXPECT_EQ(exits.Next().key, spec.key);
  EXPECT_FALSE(harness->IsRunning(spec.key));
}

TEST_P(LauncherConformance, Kill_WorkerThatIgnoresStop_EndsIt) {
  Use(WorkerBehaviour::kIgnoreStop);
  const GangSpec spec = Spec();
  ASSERT_TRUE(launcher->Launch(spec).ok());
  harness->AwaitRunning(spec.key);
  launcher->Kill(spec.key);
  EXPECT_EQ(exits.Next().key, spec.key);
  EXPECT_FALSE(harness->IsRunning(spec.key));
}

TEST_P(LauncherConformance, Worker_ExitsWithoutAWord_IsRankLostWithAnExplanation) {
  Use(WorkerBehaviour::kExitAtOnce);
  ASSERT_TRUE(launcher->Launch(Spec()).ok());
  const GangExit exit = exits.Next();
  EXPECT_EQ(exit.cause, FailureCause::kRankLost);
  EXPECT_NE(exit.message, "");
}

TEST_P(LauncherConformance, Worker_LeavesARecord_ExplainsTheExit) {
  Use(WorkerBehaviour::kLeaveRecord);
  ASSERT_TRUE(launcher->Launch(Spec()).ok());
  const GangExit exit = exits.Next();
  EXPECT_EQ(exit.cause, FailureCause::kStorage);
  EXPECT_THAT(exit.message, testing::HasSubstr("disk full"));
}

TEST_P(LauncherConformance, Worker_LeavesADescendant_ExitIsReportedOnlyWhenThatIsGoneToo) {
  Use(WorkerBehaviour::kLeaveDescendant);
  const GangSpec spec = Spec();
  ASSERT_TRUE(launcher->Launch(spec).ok());
  EXPECT_EQ(exits.Next().key, spec.key);
  EXPECT_FALSE(harness->IsRunning(spec.key));
}

TEST_P(LauncherConformance, Launch_CannotStart_IsAnErrorAndNoExit) {
  launcher = harness->NewBrokenLauncher();
  exits.Follow(*launcher);
  const GangSpec spec = Spec();
  const auto handle = launcher->Launch(spec);
  EXPECT_FALSE(handle.ok());
  EXPECT_FALSE(handle.status().message().empty());
  EXPECT_FALSE(harness->IsRunning(spec.key));
  EXPECT_EQ(exits.count(), 0u);
}

TEST_P(LauncherConformance, Launch_Twice_IsRefused) {
  Use(WorkerBehaviour::kRunUntilStopped);
  const GangSpec spec = Spec();
  ASSERT_TRUE(launcher->Launch(spec).ok());
  EXPECT_EQ(launcher->Launch(spec).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(launcher->Recover(spec.key, spec.nodes, spec.run_dir, "").code(), absl::StatusCode::kAlreadyExists);
  launcher->Kill(spec.key);
  exits.Next();
  EXPECT_EQ(launcher->Launch(spec).status().code(), absl::StatusCode::kAlreadyExists);
}

// The first is a preflight: to a launcher, its epoch is one like any other.
TEST_P(LauncherConformance, Launch_TwoGangs_EachIsStoppedAlone) {
  Use(WorkerBehaviour::kRunUntilStopped);
  const GangSpec first = Spec(0);
  const GangSpec second = Spec(1);
  ASSERT_TRUE(launcher->Launch(first).ok());
  ASSERT_TRUE(launcher->Launch(second).ok());
  harness->AwaitRunning(first.key);
  harness->AwaitRunning(second.key);
  launcher->Stop(first.key);
  EXPECT_EQ(exits.Next().key, first.key);
  EXPECT_TRUE(harness->IsRunning(second.key));
  launcher->Stop(second.key);
  EXPECT_EQ(exits.Next().key, second.key);
}

TEST_P(LauncherConformance, Recover_RunningGang_IsLikeOneOfOurs) {
  for (const int32_t epoch : {0, 1}) {
    Use(WorkerBehaviour::kRunUntilStopped);
    const GangSpec spec = Spec(epoch);
    const auto handle = launcher->Launch(spec);
    ASSERT_TRUE(handle.ok());
    harness->AwaitRunning(spec.key);
    Use(WorkerBehaviour::kRunUntilStopped);
    EXPECT_TRUE(harness->IsRunning(spec.key)) << "a gang must not die with the server";
    ASSERT_TRUE(launcher->Recover(spec.key, spec.nodes, spec.run_dir, *handle).ok());
    launcher->Stop(spec.key);
    EXPECT_EQ(exits.Next().key, spec.key);
    EXPECT_FALSE(harness->IsRunning(spec.key));
  }
}

TEST_P(LauncherConformance, Launch_SeveralNodes_AreOneGang) {
  Use(WorkerBehaviour::kIgnoreStop);
  GangSpec spec = Spec();
  spec.nodes = 3;
  const auto handle = launcher->Launch(spec);
  ASSERT_TRUE(handle.ok()) << handle.status();
  harness->AwaitRunning(spec.key);
  Use(WorkerBehaviour::kIgnoreStop);
  ASSERT_TRUE(launcher->Recover(spec.key, spec.nodes, spec.run_dir, *handle).ok());
  launcher->Kill(spec.key);
  EXPECT_EQ(exits.Next().key, spec.key);
  EXPECT_FALSE(harness->IsRunning(spec.key));
  EXPECT_EQ(exits.count(), 1u);
}

TEST_P(LauncherConformance, Node_OfSeveralIsGone_IsToldWhileTheOthersRun) {
  Use(WorkerBehaviour::kLoseNode1);
  GangSpec spec = Spec();
  spec.nodes = 2;
  ASSERT_TRUE(launcher->Launch(spec).ok());
  const NodeLoss exit = exits.FirstNode();
  EXPECT_EQ(exit.key, spec.key);
  EXPECT_EQ(exit.node, 1);
  EXPECT_TRUE(exit.speechless);
  EXPECT_EQ(exit.cause, FailureCause::kRankLost);
  EXPECT_THAT(exit.message, testing::HasSubstr("node 1"));
  EXPECT_TRUE(harness->IsRunning(spec.key));
  harness->AwaitRunning(spec.key);
  launcher->Stop(spec.key);
  EXPECT_THAT(exits.Next().message, testing::HasSubstr("node 1")) << "node 0 was told to end";
  EXPECT_FALSE(harness->IsRunning(spec.key));
}

TEST_P(LauncherConformance, Recover_HandleWasNeverStored_FindsTheGang) {
  Use(WorkerBehaviour::kIgnoreStop);
  const GangSpec spec = Spec();
  ASSERT_TRUE(launcher->Launch(spec).ok());
  harness->AwaitRunning(spec.key);
  Use(WorkerBehaviour::kIgnoreStop);
  ASSERT_TRUE(launcher->Recover(spec.key, spec.nodes, spec.run_dir, "").ok());
  launcher->Kill(spec.key);
  EXPECT_EQ(exits.Next().key, spec.key);
  EXPECT_FALSE(harness->IsRunning(spec.key));
}

TEST_P(LauncherConformance, Recover_NothingIsLeft_ReportsAnExit) {
  Use(WorkerBehaviour::kRunUntilStopped);
  const GangSpec spec = Spec();
  ASSERT_TRUE(launcher->Recover(spec.key, spec.nodes, spec.run_dir, "").ok());
  EXPECT_EQ(exits.Next().key, spec.key);
}

TEST_P(LauncherConformance, Recover_MeaninglessHandle_ReportsAnExit) {
  Use(WorkerBehaviour::kRunUntilStopped);
  const GangSpec spec = Spec();
  ASSERT_TRUE(launcher->Recover(spec.key, spec.nodes, spec.run_dir, "{\"pid\": \"x\", \"boot_id\": 3}").ok());
  EXPECT_EQ(exits.Next().key, spec.key);
}

TEST_P(LauncherConformance, StopAndKill_UnknownGang_DoNothing) {
  Use(WorkerBehaviour::kRunUntilStopped);
  launcher->Stop({"nobody", 7});
  launcher->Kill({"nobody", 7});
  EXPECT_EQ(exits.count(), 0u);
}

}  // namespace temper
