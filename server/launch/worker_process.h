// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "server/launch/launcher.h"

namespace temper {

// The entry of the environment by which everything that a gang starts can be told.
std::string GangMark(const std::filesystem::path& run_dir);

// Starts `binary` as the worker of a gang (node 0), with its output in RUN_DIR/worker.log, and returns its pid. RUN_DIR
// is created.
//
// ALREADY_EXISTS: RUN_DIR was used before. NOT_FOUND, PERMISSION_DENIED, UNAVAILABLE: why it can't be started.
absl::StatusOr<pid_t> StartWorker(const std::filesystem::path& binary, const GangSpec& spec);

}  // namespace temper
