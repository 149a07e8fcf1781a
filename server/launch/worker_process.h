// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/launch/launcher.h"
#include "server/launch/worker_environment.h"

namespace temper {

// A worker's own directory below that of its gang; node 0's is the gang's.
std::filesystem::path NodeDirectory(const std::filesystem::path& run_dir, int32_t node);

// The entry of the environment by which everything that a worker starts can be told.
std::string NodeMark(const std::filesystem::path& node_directory);

// Starts `binary` as a worker of a gang, with its output in NodeDirectory/worker.log, and returns its pid. The
// directory is created. It sees these GPUs (names as CUDA_VISIBLE_DEVICES has them), and GpusOf can tell which. Its
// environment is what `shared` selects of this process's, besides what is the gang's own.
//
// ALREADY_EXISTS: it was used before. NOT_FOUND, PERMISSION_DENIED, UNAVAILABLE: why it can't be started.
absl::StatusOr<pid_t> StartWorker(const std::filesystem::path& binary, const WorkerEnvironment& shared,
                                  const GangSpec& spec, int32_t node, const std::vector<std::string>& gpus);

// GPUs of the worker that was started in this directory, whether or not it still runs.
std::vector<std::string> GpusOf(const std::filesystem::path& node_directory);

}  // namespace temper
