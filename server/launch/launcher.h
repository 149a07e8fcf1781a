// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/failure.h"

namespace temper {

// Which gang: a job is launched at most once per epoch.
struct GangKey {
  std::string job_id;  // without "jobs/"
  int32_t epoch = 0;

  auto operator<=>(const GangKey&) const = default;
};

// What a launcher needs in order to start a gang.
struct GangSpec {
  GangKey key;
  // Where its workers find the server: HOST:PORT.
  std::string server_address;
  // What a worker shows the server. Kept out of command lines and logs.
  std::string token;
  // The gang's own directory on this host: output, exit records. Unique; need not exist.
  std::filesystem::path run_dir;
  // How many workers it has; each is told its index.
  int32_t nodes = 1;
  // GPUs that each of them gets for itself; it sees no others.
  int32_t gpus_per_node = 0;
};

// A node of a gang is gone, while others are left. What is to become of them is for the controller to say.
struct NodeLoss {
  GangKey key;
  int32_t node = 0;
  // As GangExit has it.
  FailureCause cause = FailureCause::kRankLost;
  std::string message;
  // It has left no word of its own: nobody but the launcher knows how it ended.
  bool speechless = false;
};

// A gang is gone, with every process that it ever had.
struct GangExit {
  GangKey key;
  // Why, if nobody knows better: kRankLost unless the workers left word of another cause. Never kNone, since a gang
  // that ends well says so over its stream.
  FailureCause cause = FailureCause::kRankLost;
  // For people: exit status or signal, what the worker left in its exit record, where its output is.
  std::string message;
};

// How a gang comes to exist, and how it ends. The only part of the server that knows what a process (or a pod) is;
// every implementation passes tests/server/launch/launcher_conformance.h.
//
// Calls come from one thread at a time and return soon: what takes long goes on in the background and ends in
// `on_exit`.
class Launcher {
 public:
  // Called once per launched or recovered gang, when the last of its processes is gone, on a thread of the launcher's.
  // It may not call the launcher.
  using ExitCallback = std::function<void(const GangExit&)>;
  // The same for a node that did not end well, before its gang's exit. Not for one that was told to stop by the server,
  // or refused.
  using NodeLossCallback = std::function<void(const NodeLoss&)>;

  virtual ~Launcher() = default;

  // Before any other call.
  virtual void OnExit(ExitCallback on_exit, NodeLossCallback on_node_loss) = 0;

  // Starts a gang. Returns a handle, an opaque text with which a later server process can find it again.
  //
  // Any error means that nothing runs and nothing will (on_exit is not called); its text goes to the user.
  // ALREADY_EXISTS: this gang was launched before.
  virtual absl::StatusOr<std::string> Launch(const GangSpec& spec) = 0;

  // Takes charge of a gang of so many nodes that an earlier process of the server launched, or was about to: `handle`
  // is empty when that process did not live to store it. From then on it is like one of ours. If nothing is left of it,
  // on_exit says so.
  //
  // ALREADY_EXISTS: this gang is in our charge already.
  virtual absl::Status Recover(const GangKey& key, int32_t nodes, const std::filesystem::path& run_dir,
                               const std::string& handle) = 0;

  // Asks the gang to end, and makes it end if it has not after a grace period. Nothing happens when it is not in our
  // charge, or was asked before.
  virtual void Stop(const GangKey& key) = 0;

  // Makes it end now.
  virtual void Kill(const GangKey& key) = 0;
};

}  // namespace temper
