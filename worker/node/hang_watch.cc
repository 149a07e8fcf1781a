// SPDX-License-Identifier: Apache-2.0
#include "worker/node/hang_watch.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"

namespace temper {
namespace {

constexpr double kMedians = 10;
constexpr size_t kSteps = 128;

}  // namespace

HangWatch::Sign HangWatch::SignOf(const v1::RankReport& report) {
  return {report.report_case(), report.step().seconds()};
}

void HangWatch::Take(const Sign& sign, TimePoint now) {
  switch (sign.report) {
    case v1::RankReport::kStepBegun:
      in_step_ = true;
      break;
    case v1::RankReport::kStep:
      // One that did not begin here is told for an earlier gang.
      if (!std::exchange(in_step_, false)) break;
      step_seconds_.push_back(sign.step_seconds);
      if (step_seconds_.size() > kSteps) step_seconds_.pop_front();
      break;
    case v1::RankReport::kPhase:  // there was no step left to take
      in_step_ = false;
      break;
    default:
      // A checkpoint that is written beside the step, or a line in the log, says nothing of the step.
      if (InStep()) return;
  }
  since_ = now;
}

HangWatch::TimePoint HangWatch::deadline() const {
  const double limit = LimitSeconds();
  if (limit == 0) return TimePoint::max();
  return since_ + std::chrono::duration_cast<TimePoint::duration>(std::chrono::duration<double>(limit));
}

std::string HangWatch::Explain(TimePoint now) const {
  const double seconds = std::chrono::duration<double>(now - since_).count();
  if (!InStep()) {
    return absl::StrFormat(
        "rank 0 has not been heard of for %.1f s, outside of a step, and may be silent for %.1f s "
        "(hang.other_minutes)",
        seconds, LimitSeconds());
  }
  return absl::StrFormat(
      "a step has taken %.1f s, and may take %.1f s (hang.step_minutes, or 10 × the median of %.3g s)", seconds,
      LimitSeconds(), MedianStepSeconds());
}

double HangWatch::MedianStepSeconds() const {
  std::vector<double> sorted(step_seconds_.begin(), step_seconds_.end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

double HangWatch::LimitSeconds() const {
  const double minutes = InStep() ? policy_.step_minutes() : policy_.other_minutes();
  if (minutes == 0) return 0;
  return InStep() ? std::max(60 * minutes, kMedians * MedianStepSeconds()) : 60 * minutes;
}

}  // namespace temper
