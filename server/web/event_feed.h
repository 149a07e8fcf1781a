// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace temper {

// Which jobs have news, for threads that follow them. Any thread.
class EventFeed {
 public:
  struct News {
    int64_t version = 0;            // to go on from
    std::vector<std::string> jobs;  // names, in their order, each once
    bool missed = false;            // some are too long ago: look at all jobs
    bool stopping = false;          // nothing comes any more
  };

  // A listener of JobController: quick.
  void OnEvent(const std::string& job);

  int64_t version() const;

  // Blocks until there is news after `version`, or `timeout` is over (no jobs then), or Stop().
  News Wait(int64_t version, std::chrono::milliseconds timeout) const;

  // Blocks for `time`, or until Stop().
  void Pause(std::chrono::milliseconds time) const;

  // Ends all waits, for good.
  void Stop();
  bool stopping() const;

 private:
  static constexpr size_t kKept = 4096;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable std::condition_variable stopped_;  // apart, so that an event wakes nobody who pauses
  // Guarded by mutex_:
  int64_t version_ = 0;
  std::deque<std::string> recent_;  // of the newest versions, the last one's last
  bool stopping_ = false;
};

}  // namespace temper
