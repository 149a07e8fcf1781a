// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "client/command/command_line.h"

namespace temper::command {

// Shows a job's events until it has ended; the exit code says how. What `temper watch` and `temper submit --watch` do.
ExitCode Watch(const Context& context, const std::string& job);

}  // namespace temper::command
