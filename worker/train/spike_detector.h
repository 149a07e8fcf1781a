// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace temper {

// Notices a loss or gradient norm that lies far above those of the steps before.
class SpikeDetector {
 public:
  static constexpr size_t kWindow = 128;   // steps that are remembered
  static constexpr size_t kFewest = 32;    // below that, nothing is a spike
  static constexpr double kNarrow = 0.01;  // a deviation is at least this share of the mean

  // A value more than `deviations` standard deviations above the mean is a spike. The vectors are those of an earlier
  // detector, to go on from.
  explicit SpikeDetector(double deviations, std::vector<double> losses = {}, std::vector<double> norms = {});

  // What is wrong with a step, for people; empty when nothing is.
  std::string Check(double loss, double norm) const;

  // A step that was taken, spike or not: what stays high is no spike. Both are finite.
  void Add(double loss, double norm);

  // Oldest first.
  const std::vector<double>& losses() const { return losses_; }
  const std::vector<double>& norms() const { return norms_; }

 private:
  double deviations_;
  std::vector<double> losses_;
  std::vector<double> norms_;
};

}  // namespace temper
