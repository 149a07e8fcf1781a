// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <deque>
#include <string>

#include "temper/v1/job.pb.h"
#include "temper/v1/worker_service.pb.h"

namespace temper {

// Says when a gang has made no progress for too long, from what its rank 0 reports (all ranks take each step together,
// so one that hangs stops it). A step's time runs from StepBegun to its report, and is bounded by the larger of
// hang.step_minutes and ten times the median of the last 128 steps. All other time, the first step's included, runs
// from one report to the next, and is bounded by hang.other_minutes. Not thread-safe.
class HangWatch {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // What of a report tells of progress.
  struct Sign {
    v1::RankReport::ReportCase report = v1::RankReport::REPORT_NOT_SET;
    double step_seconds = 0;  // of a step's
  };
  static Sign SignOf(const v1::RankReport& report);

  HangWatch(const v1::HangPolicy& policy, TimePoint now) : policy_(policy), since_(now) {}

  // In the order in which rank 0 reported them.
  void Take(const Sign& sign, TimePoint now);

  // Nobody looked for a while: what is under way gets its whole time again.
  void Restart(TimePoint now) { since_ = now; }

  // The gang hangs if nothing comes before it; TimePoint::max(): it has all the time it wants.
  TimePoint deadline() const;

  // For people: what takes how long, and how long it may.
  std::string Explain(TimePoint now) const;

 private:
  // Whether the step under way has the bound of steps.
  bool InStep() const { return in_step_ && !step_seconds_.empty(); }
  double MedianStepSeconds() const;
  double LimitSeconds() const;  // 0: none

  const v1::HangPolicy policy_;
  TimePoint since_;  // the step began, or rank 0 was last heard of
  bool in_step_ = false;
  std::deque<double> step_seconds_;  // the last ones, oldest first
};

}  // namespace temper
