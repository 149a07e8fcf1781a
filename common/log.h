// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace temper {

// Sets up spdlog's default logger for a binary: lines on stderr, UTC, one form for all of temper. `format` text:
//   2026-01-01T00:00:00.000Z info  temper-server: jobs/a: QUEUED -> STARTING
// `format` json, an object a line; a line that begins with a job's name has it as a field:
//   {"time":"2026-01-01T00:00:00.000Z","level":"info","program":"temper-server","job":"jobs/a","message":"QUEUED -> …"}
//
// INVALID_ARGUMENT: `level` is none of trace, debug, info, warn, error, off, or `format` neither text nor json.
absl::Status SetUpLog(std::string_view program, std::string_view level, std::string_view format);

// The environment variable that tells a process that another one starts which format to use.
inline constexpr char kLogFormatVariable[] = "TEMPER_LOG_FORMAT";

}  // namespace temper
