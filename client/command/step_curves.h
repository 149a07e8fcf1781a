// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "client/command/chart.h"
#include "temper/v1/training_service.pb.h"

namespace temper::command {

// Tokens (not padding) a second; 0 where it is not known how long the step took.
double TokensPerSecond(const v1::StepMetrics& step);

// What the job's method says of a step beside the loss: how far it has come, and how often it is right.
struct MethodFigures {
  std::string name;  // "margin": of pairs, by how much the better answers' rewards exceed the others'
  double value = 0;
  std::string share_name;  // "accuracy": of pairs, in how many they do
  double share = 0;        // 0 to 1
};

// Absent where the method has none (supervised fine-tuning).
std::optional<MethodFigures> MethodFiguresOf(const v1::StepMetrics& step);

// The figures of steps that charts show: loss, gradient norm, learning rate, tokens a second, and those of the method.
// Of a long run some.
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
