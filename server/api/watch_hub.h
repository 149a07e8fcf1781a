// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

namespace temper {

struct WatchOptions {
  // A reader that has not taken an event for so long is too slow: it is told so if it ever reads again, and cut off
  // after another such time.
  std::chrono::milliseconds stall_limit{30'000};
};

// One watching stream, as the hub sees it. All methods are called by the hub, on its thread.
class Watcher {
 public:
  virtual ~Watcher() = default;
  // There is news, or the server stops: go on. Called once per Wait() that said kWaiting.
  virtual void Wake() = 0;
  // Since when an event has been on its way; zero time when none is.
  virtual std::chrono::steady_clock::time_point WritingSince() const = 0;
  // Not going on within the stall limit.
  virtual void TooSlow() = 0;
  // Not even within two.
  virtual void CutOff() = 0;
};

// Wakes watchers when their job has a new event, so that none needs a thread or asks again and again, and looks after
// those whose readers have stopped. It holds no events: a watcher reads them from the store at its own pace, and a slow
// one costs nobody memory.
class WatchHub {
 public:
  explicit WatchHub(WatchOptions options);
  ~WatchHub();
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // The controller's listener: the job (by name) has an event with this sequence. Quick; any thread.
  void OnEvent(const std::string& job, int64_t sequence);

  // The watcher is known until Remove(). How many there may be is not the hub's affair (RpcServerOptions).
  void Add(Watcher* watcher, const std::string& job);
  void Remove(Watcher* watcher);

  enum class WaitResult {
    kWaiting,    // Wake() will be called; the watcher may be gone as soon as this returns
    kNews,       // there is an event after `after_sequence` already
    kCancelled,  // Cancel() was called before
    kStopping,
  };
  // Call only while no Wake() is due.
  WaitResult Wait(Watcher* watcher, int64_t after_sequence);

  // The client has gone. True: the watcher waited, Wake() won't be called any more, and the caller ends the stream.
  // False: whoever is at work on the stream will learn of it from Wait().
  bool Cancel(Watcher* watcher);

  // Wakes everybody; from then on Wait() says kStopping.
  void Stop();
  bool stopping() const;

  int watchers() const;

 private:
  struct State {
    std::string job;
    bool waiting = false;
    bool cancelled = false;
    bool too_slow = false;
  };
  struct WatchedJob {
    int64_t newest = 0;  // sequence of the newest event since somebody watches
    std::set<Watcher*> watchers;
  };

  void Run();
  void CheckStalls(std::chrono::steady_clock::time_point now);

  const WatchOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::map<Watcher*, State> watchers_;
  std::map<std::string, WatchedJob> jobs_;
  std::deque<Watcher*> ready_;  // to be woken
  bool stopping_ = false;
  bool closing_ = false;

  std::thread thread_;  // last: it uses everything above
};

}  // namespace temper
