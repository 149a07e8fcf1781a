// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace temper {

// Sets up spdlog's default logger for a binary: lines on stderr, UTC, one format for all of temper:
//   2026-01-01T00:00:00.000Z INFO  temper-server: text
//
// INVALID_ARGUMENT: `level` is none of trace, debug, info, warn, error, off.
absl::Status SetUpLog(std::string_view program, std::string_view level);

}  // namespace temper
