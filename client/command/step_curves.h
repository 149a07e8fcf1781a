// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "client/command/chart.h"
#include "temper/v1/training_service.pb.h"

namespace temper::command {

// Tokens (not padding) a second; 0 where it is not known how long the step took.
double TokensPerSecond(const v1::StepMetrics& step);

// What a job that learns from pairs of answers says of a step: by how much the better answers' rewards exceed the
// others', and in how many pairs they do.
struct PairFigures {
  double margin = 0;
  double accuracy = 0;  // 0 to 1
};

// Absent where the job does not learn from pairs.
std::optional<PairFigures> PairFiguresOf(const v1::StepMetrics& step);

// The figures of steps that charts show: loss, gradient norm, learning rate, tokens a second, of
// pairs their margin and accuracy too. Of a long run some.
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
