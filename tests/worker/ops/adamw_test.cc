// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/adamw.h"

#include <cmath>

#include "tests/worker/ops/reference_check.h"

namespace temper::ops {
namespace {

// The formulas of the paper for one number, in fp64.
struct Scalar {
  double weight, m = 0, v = 0;
  void Step(double gradient, const AdamWCoefficients& c) {
    gradient *= c.gradient_scale;
    weight -= c.learning_rate * c.weight_decay * weight;
    m = c.beta1 * m + (1 - c.beta1) * gradient;
    v = c.beta2 * v + (1 - c.beta2) * gradient * gradient;
    const double m_hat = m / (1 - std::pow(c.beta1, c.step)), v_hat = v / (1 - std::pow(c.beta2, c.step));
    weight -= c.learning_rate * m_hat / (std::sqrt(v_hat) + c.epsilon);
  }
};

TEST(AdamWUpdate, ManySteps_FollowThePaper) {
  at::manual_seed(1);
  const int64_t size = 37;
  at::Tensor master = at::randn({size}), m = at::zeros({size}), v = at::zeros({size});
  std::vector<Scalar> reference;
  for (int64_t i = 0; i < size; ++i) reference.push_back({master[i].item<double>()});
  for (int64_t step = 1; step <= 20; ++step) {
    const at::Tensor gradient = at::randn({size});
    const AdamWCoefficients c = {
        .learning_rate = 1e-2, .weight_decay = 0.1, .step = step, .gradient_scale = step % 2 ? 1.0 : 0.5};
    AdamWUpdate(master, gradient, m, v, c);
    for (int64_t i = 0; i < size; ++i) reference[i].Step(gradient[i].item<double>(), c);
  }
  for (int64_t i = 0; i < size; ++i) EXPECT_NEAR(master[i].item<double>(), reference[i].weight, 1e-5);
}

}  // namespace
}  // namespace temper::ops
