// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>

#include "common/clock.h"
#include "temper/v1/worker_service.pb.h"

namespace temper {

// Reports on their way to the server: kept until they are acknowledged, within a bound.
//
// A report gets its sequence number when it is sent for the first time, so that what is dropped before leaves no gap.
// Not thread-safe.
class ReportBuffer {
 public:
  // `max_bytes` bounds the reports that wait, `window` the number of those that are sent and not acknowledged.
  // A report's `age` is counted from Add() to Next().
  // The node itself speaks as `node_rank`.
  ReportBuffer(size_t max_bytes, size_t window, const Clock& clock, int32_t node_rank = -1)
      : max_bytes_(max_bytes), window_(window), clock_(clock), node_rank_(node_rank) {}

  // Over the bound, the oldest log lines are dropped, then the oldest steps; never a phase, an export or an end. How
  // many were dropped is told in a log line of the node before what comes after them.
  void Add(v1::RankReport report);

  // The next report to write to the stream, numbered; none while the window is full or nothing waits.
  std::optional<v1::RankReport> Next();
  bool HasNext() const;

  // The stream broke: all that was not acknowledged is to be sent again.
  void Rewind() { resend_ = 0; }

  // All reports of `rank` up to `sequence` are durable. Returns the newest step that is one of them and was not before;
  // 0: none is.
  int64_t Acknowledge(int32_t rank, int64_t sequence);

  // Everything is acknowledged.
  bool empty() const { return sent_.empty() && waiting_.empty() && dropped_logs_ + dropped_steps_ == 0; }

 private:
  struct Entry {
    v1::RankReport report;
    std::chrono::nanoseconds since;  // Clock::Elapsed() as it came
  };

  v1::RankReport DropNotice();
  v1::RankReport WithAge(const Entry& entry) const;
  // Drops the oldest waiting reports of a kind until `waiting_bytes_` is at most `target`; returns how many.
  int64_t Drop(v1::RankReport::ReportCase kind, size_t target);

  const size_t max_bytes_;
  const size_t window_;
  const Clock& clock_;
  const int32_t node_rank_;
  std::deque<Entry> sent_;     // oldest first; numbered
  size_t resend_ = 0;          // index in sent_ of the next one to write
  std::deque<Entry> waiting_;  // oldest first; not numbered
  size_t waiting_bytes_ = 0;
  int64_t dropped_logs_ = 0;  // since the last notice
  int64_t dropped_steps_ = 0;
  std::map<int32_t, int64_t> last_sequence_;  // by rank
};

}  // namespace temper
