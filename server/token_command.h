// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

namespace temper {

// `temper-server token create|list|revoke`: the tokens of a data directory, for who may write there, whether a server
// runs on it or not. It is how the first admin gets a token.
class TokenCommand {
 public:
  // `data_dir` is the application's own option, and outlives the command.
  TokenCommand(CLI::App& app, const std::string& data_dir);

  // Whether the command line has it.
  bool asked_for() const { return command_->parsed(); }
  // Does it, and says what went wrong on standard error. An exit code of temper-server.
  int Run() const;

 private:
  CLI::App* const command_;
  CLI::App* const create_;
  CLI::App* const list_;
  CLI::App* const revoke_;
  const std::string& data_dir_;
  std::string identity_;
  std::string role_ = "submitter";
  long lifetime_ = 0;  // in seconds; 0: for ever
  std::string id_;
};

}  // namespace temper
