// SPDX-License-Identifier: Apache-2.0
#include "worker/train/spike_detector.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"

namespace temper {
namespace {

std::string Compare(const char* name, double value, const std::vector<double>& before, double deviations) {
  if (before.size() < SpikeDetector::kFewest) return "";
  const auto count = static_cast<double>(before.size());
  const double mean = std::accumulate(before.begin(), before.end(), 0.0) / count;
  double squares = 0;
  for (const double one : before) squares += (one - mean) * (one - mean);
  const double deviation = std::max(std::sqrt(squares / count), SpikeDetector::kNarrow * std::abs(mean));
  if (value <= mean + deviations * deviation) return "";
  return absl::StrFormat("a %s of %.4g, %.1f standard deviations above %.4g, the mean of %d steps", name, value,
                         (value - mean) / deviation, mean, before.size());
}

void Push(std::vector<double>& window, double value) {
  if (window.size() == SpikeDetector::kWindow) window.erase(window.begin());
  window.push_back(value);
}

}  // namespace

SpikeDetector::SpikeDetector(double deviations, std::vector<double> losses, std::vector<double> norms)
    : deviations_(deviations), losses_(std::move(losses)), norms_(std::move(norms)) {}

std::string SpikeDetector::Check(double loss, double norm) const {
  const std::string high_loss = Compare("loss", loss, losses_, deviations_);
  return high_loss.empty() ? Compare("gradient norm", norm, norms_, deviations_) : high_loss;
}

void SpikeDetector::Add(double loss, double norm) {
  Push(losses_, loss);
  Push(norms_, norm);
}

}  // namespace temper
