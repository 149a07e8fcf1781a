// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/time/time.h"
#include "client/command/step_curves.h"
#include "temper/v1/training_service.pb.h"

namespace temper::command {

// How far a run is, from the figures of its steps.
class TrainingProgress {
 public:
  void Add(const v1::StepMetrics& step);
  void SetTotalSteps(int64_t total) { total_steps_ = total; }

  int64_t step() const { return last_.step(); }
  int64_t total_steps() const { return total_steps_; }
  // Tokens (not padding) a second, over about the last ten steps.
  double tokens_per_second() const { return seconds_ > 0 ? tokens_ / seconds_ : 0; }
  // Until the last step, at the pace of about the last ten; infinite while unknown.
  absl::Duration remaining() const;

  const StepCurves& curves() const { return curves_; }

  // "[####......]  12/60  loss 1.2345 █▆▄▂▁  812.4 tokens/s  MFU 23.4%  ETA 1m20s"
  std::string Line() const;

 private:
  v1::StepMetrics last_;
  StepCurves curves_;
  int64_t total_steps_ = 0;
  // Sums in which a step fades by a tenth with each one that follows.
  double tokens_ = 0;
  double seconds_ = 0;
  double steps_ = 0;
};

// "step 12/60  loss 1.2345  grad_norm 0.91  lr 2.0e-04  812.4 tokens/s  MFU 23.4%", for logs and pipes; of pairs with
// "  margin 0.123  accuracy 75.0%" behind the loss.
std::string StepText(const v1::StepMetrics& step);

}  // namespace temper::command
