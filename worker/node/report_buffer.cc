// SPDX-License-Identifier: Apache-2.0
#include "worker/node/report_buffer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/counted.h"
#include "common/rpc/timestamp.h"

namespace temper {

void ReportBuffer::Add(v1::RankReport report) {
  waiting_bytes_ += report.ByteSizeLong();
  waiting_.push_back({std::move(report), clock_.Elapsed()});
  if (waiting_bytes_ <= max_bytes_) return;
  // Below the bound by a margin, so that a full buffer is not searched for every line.
  const size_t target = max_bytes_ - max_bytes_ / 8;
  dropped_logs_ += Drop(v1::RankReport::kLog, target);
  if (waiting_bytes_ > max_bytes_) dropped_steps_ += Drop(v1::RankReport::kStep, target);
}

int64_t ReportBuffer::Drop(v1::RankReport::ReportCase kind, size_t target) {
  return static_cast<int64_t>(std::erase_if(waiting_, [&](const Entry& entry) {
    if (waiting_bytes_ <= target || entry.report.report_case() != kind) return false;
    waiting_bytes_ -= entry.report.ByteSizeLong();
    return true;
  }));
}

bool ReportBuffer::HasNext() const {
  if (resend_ < sent_.size()) return true;
  return sent_.size() < window_ && (!waiting_.empty() || dropped_logs_ + dropped_steps_ > 0);
}

std::optional<v1::RankReport> ReportBuffer::Next() {
  if (!HasNext()) return std::nullopt;
  if (resend_ < sent_.size()) return WithAge(sent_[resend_++]);
  Entry entry;
  if (dropped_logs_ + dropped_steps_ > 0) {
    entry = {DropNotice(), clock_.Elapsed()};
  } else {
    entry = std::move(waiting_.front());
    waiting_.pop_front();
    waiting_bytes_ -= entry.report.ByteSizeLong();
  }
  entry.report.set_sequence(++last_sequence_[entry.report.rank()]);
  sent_.push_back(std::move(entry));
  ++resend_;
  return WithAge(sent_.back());
}

v1::RankReport ReportBuffer::WithAge(const Entry& entry) const {
  v1::RankReport report = entry.report;
  const auto age = std::chrono::duration_cast<std::chrono::microseconds>(clock_.Elapsed() - entry.since);
  report.mutable_age()->set_seconds(age.count() / 1'000'000);
  report.mutable_age()->set_nanos(static_cast<int32_t>(age.count() % 1'000'000 * 1000));
  return report;
}

v1::RankReport ReportBuffer::DropNotice() {
  v1::RankReport notice;
  notice.set_rank(node_rank_);
  *notice.mutable_time() = ToTimestamp(clock_.Wall());
  v1::LogLine& line = *notice.mutable_log();
  line.set_rank(-1);
  line.set_severity(v1::LOG_SEVERITY_WARNING);
  line.set_text(absl::StrCat("dropped ", Counted(dropped_logs_, "log line"), " and ",
                             Counted(dropped_steps_, "step report"), ": they came faster than the server took them"));
  dropped_logs_ = 0;
  dropped_steps_ = 0;
  return notice;
}

int64_t ReportBuffer::Acknowledge(int32_t rank, int64_t sequence) {
  int64_t step = 0;
  size_t kept = 0;
  size_t resend = 0;
  for (size_t i = 0; i < sent_.size(); ++i) {
    if (sent_[i].report.rank() == rank && sent_[i].report.sequence() <= sequence) {
      step = std::max(step, sent_[i].report.step().step());
      continue;
    }
    if (i < resend_) ++resend;
    if (kept != i) sent_[kept] = std::move(sent_[i]);
    ++kept;
  }
  sent_.resize(kept);
  resend_ = resend;
  return step;
}

}  // namespace temper
