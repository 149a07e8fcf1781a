// SPDX-License-Identifier: Apache-2.0
#include "client/command/step_curves.h"

#include <string>
#include <vector>

#include "absl/strings/ascii.h"

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

std::string Capitalized(std::string text) {
  text[0] = absl::ascii_toupper(static_cast<unsigned char>(text[0]));
  return text;
}

}  // namespace

double TokensPerSecond(const v1::StepMetrics& step) {
  return step.seconds() > 0 ? static_cast<double>(step.tokens()) / step.seconds() : 0;
}

std::optional<MethodFigures> MethodFiguresOf(const v1::StepMetrics& step) {
  struct Names {
    const char *value, *name, *share, *share_name;
  };
  constexpr Names kMethods[] = {{"rewards/margins", "margin", "rewards/accuracies", "accuracy"},
                                {"margin", "margin", "accuracy", "accuracy"},  // of a reward model
                                {"distillation/divergence", "divergence", "distillation/agreement", "agreement"}};
  const auto& figures = step.objective();
  for (const Names& names : kMethods) {
    const auto value = figures.find(names.value), share = figures.find(names.share);
    if (value == figures.end() || share == figures.end()) continue;
    return MethodFigures{names.name, value->second, names.share_name, share->second};
  }
  return std::nullopt;
}

void StepCurves::Add(const v1::StepMetrics& step) {
  std::vector<double> values = {step.loss(), step.grad_norm(), step.learning_rate(), TokensPerSecond(step)};
  if (const auto figures = MethodFiguresOf(step)) {
    if (curves_.size() == values.size()) {
      for (const std::string& name : {figures->name, figures->share_name}) {
        curves_.push_back({.title = Capitalized(name), .x = {}, .y = {}});
      }
    }
    values.insert(values.end(), {figures->value, figures->share});
  }
  for (size_t i = 0; i < values.size(); ++i) Append(static_cast<double>(step.step()), values[i], curves_[i]);
}

}  // namespace temper::command
