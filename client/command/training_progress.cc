// SPDX-License-Identifier: Apache-2.0
#include "client/command/training_progress.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/command/format.h"
#include "client/command/terminal.h"

namespace temper::command {
namespace {

constexpr double kFade = 0.9;
constexpr int kBarWidth = 24;
constexpr int kCurveWidth = 12;

std::string StepOfTotal(int64_t step, int64_t total) {
  return total > 0 ? absl::StrCat(step, "/", total) : absl::StrCat(step);
}

// Empty where it is not known.
std::string MfuText(const v1::StepMetrics& step) {
  return step.has_mfu() ? absl::StrCat("  MFU ", HumanPercent(step.mfu())) : "";
}

// Empty where the method has none.
std::string MethodText(const v1::StepMetrics& step) {
  const auto figures = MethodFiguresOf(step);
  if (!figures) return "";
  return absl::StrFormat("  %s %.3g  %s %s", figures->name, figures->value, figures->share_name,
                         HumanPercent(figures->share));
}

}  // namespace

void TrainingProgress::Add(const v1::StepMetrics& step) {
  // A gang that was restarted begins with an earlier step: the old pace says nothing.
  if (step.step() <= last_.step()) tokens_ = seconds_ = steps_ = 0;
  curves_.Add(step);
  last_ = step;
  if (step.total_steps() > 0) total_steps_ = step.total_steps();
  tokens_ = kFade * tokens_ + static_cast<double>(step.tokens());
  seconds_ = kFade * seconds_ + step.seconds();
  steps_ = kFade * steps_ + 1;
}

absl::Duration TrainingProgress::remaining() const {
  if (total_steps_ == 0 || steps_ == 0) return absl::InfiniteDuration();
  return absl::Seconds(seconds_ / steps_) * static_cast<double>(std::max<int64_t>(0, total_steps_ - last_.step()));
}

std::string TrainingProgress::Line() const {
  const double ratio = total_steps_ > 0 ? static_cast<double>(last_.step()) / static_cast<double>(total_steps_) : 0;
  const std::string curve = Sparkline(curves_.losses().y, kCurveWidth);
  return absl::StrCat(Bar(ratio, kBarWidth), "  ", StepOfTotal(last_.step(), total_steps_), "  loss ",
                      HumanLoss(last_.loss()), curve.empty() ? "" : " ", curve, MethodText(last_), "  ",
                      HumanRate(tokens_per_second()), " tokens/s", MfuText(last_), "  ETA ",
                      HumanDuration(remaining()));
}

std::string StepText(const v1::StepMetrics& step) {
  return absl::StrCat("step ", StepOfTotal(step.step(), step.total_steps()), "  loss ", HumanLoss(step.loss()),
                      MethodText(step),
                      absl::StrFormat("  grad_norm %.3g  lr %.2e  ", step.grad_norm(), step.learning_rate()),
                      HumanRate(TokensPerSecond(step)), " tokens/s", MfuText(step));
}

}  // namespace temper::command
