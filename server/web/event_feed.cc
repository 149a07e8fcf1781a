// SPDX-License-Identifier: Apache-2.0
#include "server/web/event_feed.h"

#include <algorithm>
#include <set>

namespace temper {

void EventFeed::OnEvent(const std::string& job) {
  std::lock_guard lock(mutex_);
  ++version_;
  recent_.push_back(job);
  if (recent_.size() > kKept) recent_.pop_front();
  changed_.notify_all();
}

int64_t EventFeed::version() const {
  std::lock_guard lock(mutex_);
  return version_;
}

EventFeed::News EventFeed::Wait(int64_t version, std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return stopping_ || version_ > version; });
  News news{.version = version_, .stopping = stopping_};
  const auto kept = static_cast<int64_t>(recent_.size());
  news.missed = version_ - version > kept;
  const std::set<std::string> jobs(recent_.end() - std::min(kept, version_ - version), recent_.end());
  news.jobs.assign(jobs.begin(), jobs.end());
  return news;
}

void EventFeed::Pause(std::chrono::milliseconds time) const {
  std::unique_lock lock(mutex_);
  stopped_.wait_for(lock, time, [&] { return stopping_; });
}

void EventFeed::Stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
  stopped_.notify_all();
}

bool EventFeed::stopping() const {
  std::lock_guard lock(mutex_);
  return stopping_;
}

}  // namespace temper
