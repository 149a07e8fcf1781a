// SPDX-License-Identifier: Apache-2.0
#include "client/command/step_curves.h"

#include <array>

namespace temper::command {
namespace {

constexpr size_t kMostPoints = 1024;  // more than a terminal has dots across

void Append(double x, double y, Curve& curve) {
  while (!curve.x.empty() && curve.x.back() >= x) {
    curve.x.pop_back();
    curve.y.pop_back();
  }
  // Of a long run every second one is as good.
  if (curve.x.size() == kMostPoints) {
    for (size_t i = 0; i < kMostPoints / 2; ++i) {
      curve.x[i] = curve.x[2 * i];
      curve.y[i] = curve.y[2 * i];
    }
    curve.x.resize(kMostPoints / 2);
    curve.y.resize(kMostPoints / 2);
  }
  curve.x.push_back(x);
  curve.y.push_back(y);
}

}  // namespace

double TokensPerSecond(const v1::StepMetrics& step) {
  return step.seconds() > 0 ? static_cast<double>(step.tokens()) / step.seconds() : 0;
}

void StepCurves::Add(const v1::StepMetrics& step) {
  const std::array values = {step.loss(), step.grad_norm(), step.learning_rate(), TokensPerSecond(step)};
  for (size_t i = 0; i < curves_.size(); ++i) Append(static_cast<double>(step.step()), values[i], curves_[i]);
}

}  // namespace temper::command
