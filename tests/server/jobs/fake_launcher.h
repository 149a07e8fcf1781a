// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "server/launch/launcher.h"

namespace temper {

// A launcher without processes: gangs "run" until the test says that they are gone.
class FakeLauncher final : public Launcher {
 public:
  void OnExit(ExitCallback on_exit, NodeLossCallback on_node_loss) override {
    on_exit_ = std::move(on_exit);
    on_node_loss_ = std::move(on_node_loss);
  }

  absl::StatusOr<std::string> Launch(const GangSpec& spec) override {
    launches.push_back(spec);
    if (!launch_error.ok()) return launch_error;
    running.insert(spec.key);
    if (during_launch) during_launch();
    return "handle of " + spec.key.job_id;
  }

  absl::Status Recover(const GangKey& key, int32_t nodes, const std::filesystem::path& run_dir,
                       const std::string& handle) override {
    recovered_nodes[key] = nodes;
    recovered[key] = {run_dir, handle};
    running.insert(key);
    return absl::OkStatus();
  }

  void Stop(const GangKey& key) override {
    stops.push_back(key);
    if (on_stop) on_stop();
  }
  void Kill(const GangKey& key) override { kills.push_back(key); }

  // The last process of the gang is gone.
  void Exit(const GangKey& key, FailureCause cause = FailureCause::kRankLost, std::string message = "exit status 9") {
    ASSERT_EQ(running.erase(key), 1u) << key.job_id << " does not run";
    on_exit_({key, cause, std::move(message)});
  }

  // A node of it is gone without a word.
  void LoseNode(const GangKey& key, int32_t node) {
    on_node_loss_({key, node, FailureCause::kRankLost, "killed by signal 9", /*speechless=*/true});
  }

  std::vector<GangSpec> launches;
  std::vector<GangKey> stops;
  std::vector<GangKey> kills;
  std::map<GangKey, std::pair<std::filesystem::path, std::string>> recovered;
  std::map<GangKey, int32_t> recovered_nodes;
  std::set<GangKey> running;
  absl::Status launch_error;
  std::function<void()> during_launch;
  std::function<void()> on_stop;

 private:
  ExitCallback on_exit_;
  NodeLossCallback on_node_loss_;
};

}  // namespace temper
