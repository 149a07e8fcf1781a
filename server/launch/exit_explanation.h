// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/failure.h"

namespace temper {

// How a worker ended.
struct WorkerExit {
  // kRankLost unless it left word of another cause.
  FailureCause cause = FailureCause::kRankLost;
  std::string message;
  // It has written an exit record, …
  bool left_word = false;
  // … which says what went wrong. Not if it ended well, was told to stop or was refused.
  bool names_cause = false;
};

// Why a worker ended, from what is left of it: RUN_DIR/exit.json where it has written one, else the way in which the
// process died (`wait_status` as waitpid(2) gives it; absent when nobody can tell) and the end of RUN_DIR/worker.log.
WorkerExit ExplainExit(const std::filesystem::path& run_dir, std::optional<int> wait_status);

// Of the ends of a gang's workers, in the order in which they came, the one that tells most about why. One that names a
// cause of its own tells more than one that died without a word, and that more than one that lost a rank: for that may
// be another's. There must be one.
WorkerExit MostTelling(const std::vector<WorkerExit>& exits);

}  // namespace temper
