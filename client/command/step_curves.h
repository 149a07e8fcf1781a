// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "client/command/chart.h"
#include "temper/v1/training_service.pb.h"

namespace temper::command {

// Tokens (not padding) a second; 0 where it is not known how long the step took.
double TokensPerSecond(const v1::StepMetrics& step);

// The figures of steps that charts show: loss, gradient norm, learning rate, tokens a second. Of a long run some.
class StepCurves {
 public:
  // One that is taken again takes the place of the first, and of what came after it.
  void Add(const v1::StepMetrics& step);

  const std::vector<Curve>& all() const { return curves_; }
  const Curve& losses() const { return curves_.front(); }

 private:
  std::vector<Curve> curves_ = {{.title = "Loss", .x = {}, .y = {}},
                                {.title = "Gradient norm", .x = {}, .y = {}},
                                {.title = "Learning rate", .x = {}, .y = {}},
                                {.title = "Tokens/s", .x = {}, .y = {}}};
};

}  // namespace temper::command
