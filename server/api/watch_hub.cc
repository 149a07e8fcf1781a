// SPDX-License-Identifier: Apache-2.0
#include "server/api/watch_hub.h"

#include <algorithm>
#include <utility>

namespace temper {
namespace {

// Watchers that are woken in a row, and what then is left to calls and reports: where hundreds watch one job, an event
// to all of them is work for tens of milliseconds.
constexpr int kInARow = 8;
constexpr std::chrono::microseconds kBreath{500};

}  // namespace

WatchHub::WatchHub(WatchOptions options) : options_(options), thread_([this] { Run(); }) {}

WatchHub::~WatchHub() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void WatchHub::OnEvent(const std::string& job, int64_t sequence) {
  std::lock_guard lock(mutex_);
  const auto watched = jobs_.find(job);
  if (watched == jobs_.end()) return;
  watched->second.newest = std::max(watched->second.newest, sequence);
  for (Watcher* watcher : watched->second.watchers) {
    State& state = watchers_.at(watcher);
    if (!state.waiting) continue;
    state.waiting = false;
    ready_.push_back(watcher);
  }
  if (!ready_.empty()) changed_.notify_all();
}

void WatchHub::Add(Watcher* watcher, const std::string& job) {
  std::lock_guard lock(mutex_);
  watchers_[watcher].job = job;
  jobs_[job].watchers.insert(watcher);
}

void WatchHub::Remove(Watcher* watcher) {
  std::lock_guard lock(mutex_);
  const auto state = watchers_.find(watcher);
  if (state == watchers_.end()) return;
  const auto job = jobs_.find(state->second.job);
  job->second.watchers.erase(watcher);
  if (job->second.watchers.empty()) jobs_.erase(job);
  watchers_.erase(state);
}

WatchHub::WaitResult WatchHub::Wait(Watcher* watcher, int64_t after_sequence) {
  std::lock_guard lock(mutex_);
  State& state = watchers_.at(watcher);
  if (state.cancelled) return WaitResult::kCancelled;
  if (stopping_) return WaitResult::kStopping;
  if (jobs_.at(state.job).newest > after_sequence) return WaitResult::kNews;
  state.waiting = true;
  return WaitResult::kWaiting;
}

bool WatchHub::Cancel(Watcher* watcher) {
  std::lock_guard lock(mutex_);
  const auto state = watchers_.find(watcher);
  if (state == watchers_.end()) return false;
  state->second.cancelled = true;
  return std::exchange(state->second.waiting, false);
}

void WatchHub::Stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  for (auto& [watcher, state] : watchers_) {
    if (std::exchange(state.waiting, false)) ready_.push_back(watcher);
  }
  changed_.notify_all();
}

bool WatchHub::stopping() const {
  std::lock_guard lock(mutex_);
  return stopping_;
}

int WatchHub::watchers() const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(watchers_.size());
}

void WatchHub::Run() {
  const auto period = std::max(options_.stall_limit / 4, std::chrono::milliseconds(1));
  auto next_check = std::chrono::steady_clock::now() + period;
  std::unique_lock lock(mutex_);
  while (!closing_) {
    changed_.wait_until(lock, next_check, [this] { return closing_ || !ready_.empty(); });
    for (int woken = 1; !ready_.empty(); ++woken) {
      Watcher* watcher = ready_.front();
      ready_.pop_front();
      // A watcher that is ready lives until it is woken: only who has its turn ends its stream.
      lock.unlock();
      watcher->Wake();
      if (woken % kInARow == 0) std::this_thread::sleep_for(kBreath);
      lock.lock();
    }
    const auto now = std::chrono::steady_clock::now();
    if (now < next_check) continue;
    CheckStalls(now);
    next_check = now + period;
  }
}

void WatchHub::CheckStalls(std::chrono::steady_clock::time_point now) {
  // With the lock held, so that none is removed meanwhile. TooSlow() and CutOff() only leave word.
  for (auto& [watcher, state] : watchers_) {
    const auto since = watcher->WritingSince();
    if (since == std::chrono::steady_clock::time_point() || now - since < options_.stall_limit) continue;
    if (!std::exchange(state.too_slow, true)) watcher->TooSlow();
    if (now - since >= 2 * options_.stall_limit) watcher->CutOff();
  }
}

}  // namespace temper
