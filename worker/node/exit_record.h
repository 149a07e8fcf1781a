// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "temper/v1/training_service.pb.h"

namespace temper {

// How temper-worker ended, for whoever launched it; also the process's exit status.
enum class NodeExit {
  kOk = 0,          // every rank ended well, and the server knows
  kRankFailed = 1,  // a rank, or its launch, failed
  kUsage = 2,       // the command line or the environment is wrong
  kStopped = 3,     // told to stop by the server
  kRefused = 4,     // the server will have nothing to do with this node: the epoch is over, or the token wrong
  kServerAway = 5,  // no server for longer than the limit
  kPreempted = 6,   // told to end by a signal; the ranks had time to commit a checkpoint
};

struct ExitRecord {
  NodeExit exit = NodeExit::kOk;
  v1::FailureCause cause = v1::FAILURE_CAUSE_UNSPECIFIED;
  std::string message;
};

// Writes RUN_DIR/exit.json, whole or not at all:
//   {"exit_status": 1, "cause": "RANK_LOST", "message": "…"}
// `cause` is empty when nothing failed.
absl::Status WriteExitRecord(const std::filesystem::path& run_dir, const ExitRecord& record);

}  // namespace temper
