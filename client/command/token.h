// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <optional>

#include "client/command/command_line.h"
#include "client/token_client.h"

namespace temper::command {

// `temper token`, as the other subcommands. `tokens` outlives the parse, and is there when the action runs.
void AddToken(CLI::App& app, CommandLine& line, const std::optional<TokenClient>& tokens);

}  // namespace temper::command
