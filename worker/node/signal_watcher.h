// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <thread>

namespace temper {

// Makes SIGTERM and SIGINT wait for a SignalWatcher, in this thread and those that it starts later: call it first.
void BlockTerminationSignals();

// Waits for SIGTERM and SIGINT on a thread of its own, so that what they start needs no care about signal safety.
class SignalWatcher {
 public:
  explicit SignalWatcher(std::function<void(const std::string& signal_name)> on_signal);
  ~SignalWatcher();
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

 private:
  std::function<void(const std::string&)> on_signal_;
  int signals_;
  int ended_;
  std::thread thread_;
};

}  // namespace temper
