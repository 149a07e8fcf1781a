// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/message.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <stop_token>
#include <string>

#include "client/command/exit_code.h"
#include "client/command/terminal.h"
#include "client/training_client.h"

namespace temper::command {

// What every command has at hand while it runs.
struct Context {
  const TrainingClient& client;
  const Terminal& terminal;
  std::string server;  // HOST:PORT
  bool json = false;   // --output json
};

// What the command line says: global options, and what the subcommand wants done.
struct CommandLine {
  std::string server;
  std::string output = "table";
  std::string color = "auto";
  bool offline = false;  // the subcommand needs neither a server nor the config file
  std::function<ExitCode(const Context&)> action;
};

// Each adds one subcommand, whose callback sets `line.action`. `line` outlives the parse.
void AddSubmit(CLI::App& app, CommandLine& line);
void AddPreflight(CLI::App& app, CommandLine& line);
void AddVerify(CLI::App& app, CommandLine& line);
void AddFamilies(CLI::App& app, CommandLine& line);
void AddList(CLI::App& app, CommandLine& line);
void AddGet(CLI::App& app, CommandLine& line);
void AddWatch(CLI::App& app, CommandLine& line);
void AddLogs(CLI::App& app, CommandLine& line);
void AddCancel(CLI::App& app, CommandLine& line);
void AddPause(CLI::App& app, CommandLine& line);
void AddResume(CLI::App& app, CommandLine& line);
void AddDelete(CLI::App& app, CommandLine& line);
void AddMetrics(CLI::App& app, CommandLine& line);
void AddCheckpoints(CLI::App& app, CommandLine& line);
void AddDownload(CLI::App& app, CommandLine& line);

// Says on standard error what went wrong, in a server that does not answer also at which address and what to do.
ExitCode Fail(const Context& context, const absl::Status& status);

// Says on standard error that a transfer waits for a place (client/transfer_place.h), and why.
void PrintWaiting(const absl::Status& why);

// One line of JSON, with the field names of the schema (protobuf's JSON: int64 are strings, enums their full names).
void PrintJson(const google::protobuf::Message& message);

}  // namespace temper::command
