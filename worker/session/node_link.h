// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "temper/v1/worker_service.pb.h"
#include "worker/train/stop_signal.h"

namespace temper {

// The rank's end of the socket to its node (temper-worker).
class NodeLink {
 public:
  // Takes over `fd`, a connected stream socket, and begins to read from it.
  // `collectives`: see RankTasks.
  explicit NodeLink(int fd, std::function<std::string()> collectives = {});
  // Closes the socket; reports that were sent before are not lost.
  ~NodeLink();
  NodeLink(const NodeLink&) = delete;
  NodeLink& operator=(const NodeLink&) = delete;

  // Blocks until the node has said what to do: a command with an assignment.
  //
  // CANCELLED: told to stop, or the node is gone, before that.
  absl::StatusOr<v1::RankCommand> WaitForAssignment();

  // Any thread. Blocks while the socket is full. A report to a node that is gone is dropped, and the rank is stopped.
  void Send(const v1::RankReport& report);

  // The newest step that the server is known to have been told of.
  int64_t heard_step() const { return heard_step_; }

  // What the node asks for. When it is gone: an end without a checkpoint, for nobody would know of one.
  const StopSignal& stop() const { return stop_; }
  // Why; empty before.
  std::string stop_reason() const;

 private:
  void Read();
  void Handle(const std::string& payload);
  void DumpStacks();
  void Stop(const std::string& reason, bool checkpoint = false);

  const int fd_;
  const std::function<std::string()> collectives_;
  StopSignal stop_;
  std::atomic<int64_t> heard_step_ = 0;
  std::mutex write_mutex_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<v1::RankCommand> assignment_;  // guarded by mutex_
  std::string stop_reason_;                    // guarded by mutex_
  std::thread reader_;                         // last: it uses everything above
};

}  // namespace temper
