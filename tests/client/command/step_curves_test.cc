// SPDX-License-Identifier: Apache-2.0
#include "client/command/step_curves.h"

#include <gtest/gtest.h>

namespace temper::command {
namespace {

v1::StepMetrics Step(int64_t step) {
  v1::StepMetrics metrics;
  metrics.set_step(step);
  metrics.set_tokens(1000);
  metrics.set_seconds(2);
  metrics.set_loss(1.25);
  metrics.set_grad_norm(0.5);
  metrics.set_learning_rate(2e-4);
  return metrics;
}

TEST(StepCurves, Step_IsInEachCurve) {
  StepCurves curves;
  curves.Add(Step(7));
  std::vector<double> values;
  for (const Curve& curve : curves.all()) {
    EXPECT_EQ(curve.x, std::vector<double>{7}) << curve.title;
    values.push_back(curve.y.at(0));
  }
  EXPECT_EQ(values, (std::vector<double>{1.25, 0.5, 2e-4, 500}));
}

TEST(StepCurves, LongRun_KeepsSomeOfItsSteps) {
  StepCurves curves;
  for (int i = 1; i <= 5000; ++i) curves.Add(Step(i));
  EXPECT_LE(curves.losses().x.size(), 1024);
  EXPECT_EQ(curves.losses().x.front(), 1);
  EXPECT_EQ(curves.losses().x.back(), 5000);
  curves.Add(Step(100));  // of the next gang
  EXPECT_EQ(curves.losses().x.back(), 100);
}

}  // namespace
}  // namespace temper::command
