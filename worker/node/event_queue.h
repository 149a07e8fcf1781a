// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace temper {

// Brings what happens on many threads to the one that decides.
template <typename Event>
class EventQueue {
 public:
  void Push(Event event) {
    std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    pushed_.notify_one();
  }

  // The oldest event; nothing once `deadline` has passed without one.
  std::optional<Event> PopBefore(std::chrono::steady_clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    if (!pushed_.wait_until(lock, deadline, [this] { return !events_.empty(); })) return std::nullopt;
    Event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  std::mutex mutex_;
  std::condition_variable pushed_;
  std::deque<Event> events_;
};

}  // namespace temper
