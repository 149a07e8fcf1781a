// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/command/command_line.h"

namespace temper::command {

// A job file on the command line, and what is changed in it.
struct JobFileOptions {
  std::string file;
  std::vector<std::string> overrides;
  bool upload = false;  // files of this machine with samples are sent along
};

// `options` must outlive the parse.
void AddJobFile(CLI::App& command, JobFileOptions& options);

// Reads the file into `request` and creates the job. What the server finds wrong is reported with the file's lines.
absl::StatusOr<v1::Job> CreateJob(const Context& context, const JobFileOptions& options, v1::CreateJobRequest request);

}  // namespace temper::command
