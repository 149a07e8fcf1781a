// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stop_token>
#include <thread>

namespace temper::command {

// Turns SIGINT and SIGTERM into a stop request, so that a command can leave in order; a second one ends the process at
// once. Construct it before the process has other threads: they must inherit that the signals are blocked.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  std::stop_token token() const { return source_.get_token(); }

 private:
  std::stop_source source_;
  std::thread thread_;  // waits for the signals
};

}  // namespace temper::command
