// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/family.h>
#include <prometheus/labels.h>

#include <utility>

namespace temper {

// One time series that disappears from the page when its owner does.
template <typename Metric>
class Series {
 public:
  Series() = default;
  // `arguments` are the metric's own (a histogram's buckets). The family must outlive the series.
  template <typename... Arguments>
  Series(prometheus::Family<Metric>& family, const prometheus::Labels& labels, Arguments&&... arguments)
      : family_(&family), metric_(&family.Add(labels, std::forward<Arguments>(arguments)...)) {}
  Series(Series&& other) noexcept
      : family_(std::exchange(other.family_, nullptr)), metric_(std::exchange(other.metric_, nullptr)) {}
  Series& operator=(Series&& other) noexcept {
    std::swap(family_, other.family_);
    std::swap(metric_, other.metric_);
    return *this;
  }
  ~Series() {
    if (family_ != nullptr) family_->Remove(metric_);
  }

  Metric* operator->() const { return metric_; }

 private:
  prometheus::Family<Metric>* family_ = nullptr;
  Metric* metric_ = nullptr;
};

}  // namespace temper
