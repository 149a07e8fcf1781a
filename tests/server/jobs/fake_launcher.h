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
  void OnExit(ExitCallback callback) override { on_exit_ = std::move(callback); }

  absl::StatusOr<std::string> Launch(const GangSpec& spec) override {
    launches.push_back(spec);
    if (!launch_error.ok()) return launch_error;
    running.insert(spec.key);
    if (during_launch) during_launch();
    return "handle of " + spec.key.job_id;
  }

  absl::Status Recover(const GangKey& key, const std::filesystem::path& run_dir, const std::string& handle) override {
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

  std::vector<GangSpec> launches;
  std::vector<GangKey> stops;
  std::vector<GangKey> kills;
  std::map<GangKey, std::pair<std::filesystem::path, std::string>> recovered;
  std::set<GangKey> running;
  absl::Status launch_error;
  std::function<void()> during_launch;
  std::function<void()> on_stop;

 private:
  ExitCallback on_exit_;
};

}  // namespace temper
