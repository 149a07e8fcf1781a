// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace temper {

// Which of the server's environment variables its workers and their ranks get: those that the programs in them read to
// find files, storage and devices, and nothing else that the server may have been started with.
// docs/OPERATIONS.md lists them.
class WorkerEnvironment {
 public:
  // `added` are passed besides: names, or beginnings of names with an asterisk at their end (CheckPattern).
  explicit WorkerEnvironment(std::vector<std::string> added = {}) : added_(std::move(added)) {}

  // INVALID_ARGUMENT: it is neither a name nor a beginning with an asterisk, or stands for what no worker may have.
  static absl::Status CheckPattern(std::string_view pattern);

  // What is passed without being asked for, in the same form.
  static const std::vector<std::string_view>& Patterns();

  // Whether a worker gets the server's variable of this name.
  bool Passes(std::string_view name) const;

  // Those entries (NAME=VALUE) of `environment`, which ends with a null pointer, that a worker gets.
  std::vector<std::string> Select(char* const* environment) const;

 private:
  std::vector<std::string> added_;
};

}  // namespace temper
