// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "client/command/command_line.h"

namespace temper::command {

// `temper completion SHELL` prints a script for the shell, which asks `temper __complete WORDS…` at every press of the
// tab key: what can be completed is what the commands themselves declare.
void AddCompletion(CLI::App& app, CommandLine& line);

// Where file names belong.
inline constexpr char kFileNames[] = ":files";

// What the last of `words`, which may be empty, may become: commands, options, values of an option that has a list of
// them. kFileNames alone: a file. `words` are those behind `temper`, up to the cursor.
std::vector<std::string> Complete(const CLI::App& app, const std::vector<std::string>& words);

}  // namespace temper::command
