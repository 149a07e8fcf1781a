// SPDX-License-Identifier: Apache-2.0
#include "client/command/step_curves.h"

#include <vector>

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

std::optional<PairFigures> PairFiguresOf(const v1::StepMetrics& step) {
  const auto margin = step.objective().find("rewards/margins"), accuracy = step.objective().find("rewards/accuracies");
  if (margin == step.objective().end() || accuracy == step.objective().end()) return std::nullopt;
  return PairFigures{.margin = margin->second, .accuracy = accuracy->second};
}

void StepCurves::Add(const v1::StepMetrics& step) {
  std::vector<double> values = {step.loss(), step.grad_norm(), step.learning_rate(), TokensPerSecond(step)};
  if (const auto pairs = PairFiguresOf(step)) {
    if (curves_.size() == values.size()) {
      curves_.push_back({.title = "Reward margin", .x = {}, .y = {}});
      curves_.push_back({.title = "Accuracy", .x = {}, .y = {}});
    }
    values.insert(values.end(), {pairs->margin, pairs->accuracy});
  }
  for (size_t i = 0; i < values.size(); ++i) Append(static_cast<double>(step.step()), values[i], curves_[i]);
}

}  // namespace temper::command
