// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>

#include "server/launch/launcher.h"

namespace temper {

// Why a gang ended, from what is left of it: RUN_DIR/exit.json where its worker has written one, else the way in which
// the process died (`wait_status` as waitpid(2) gives it; absent when nobody can tell) and the end of
// RUN_DIR/worker.log.
GangExit ExplainExit(const GangKey& key, const std::filesystem::path& run_dir, std::optional<int> wait_status);

}  // namespace temper
