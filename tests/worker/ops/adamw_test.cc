// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/adamw.h"

#include <cmath>

#include "tests/worker/ops/reference_check.h"
#include "tests/worker/ops/repeatable.h"
#include "worker/ops/split_masters.h"

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

// A master in two halves is updated as if it were whole.
TEST(AdamWUpdateSplit, ManySteps_EqualThoseOfWholeMasters) {
  at::manual_seed(2);
  const at::Tensor master = at::randn({100003});
  at::Tensor whole = master.clone(), m = at::zeros_like(master), v = at::zeros_like(master);
  at::Tensor high = at::empty({100003}, at::kBFloat16), low = at::empty({100003}, at::kShort);
  SplitMasters(master, high, low);
  at::Tensor split_m = at::zeros_like(master), split_v = at::zeros_like(master);
  for (int64_t step = 1; step <= 5; ++step) {
    const at::Tensor gradient = at::randn_like(master);
    const AdamWCoefficients c = {.learning_rate = 1e-3, .weight_decay = 0.1, .step = step, .gradient_scale = 0.7};
    AdamWUpdate(whole, gradient, m, v, c);
    AdamWUpdateSplit(high, low, gradient, split_m, split_v, c);
  }
  // Ties move by a unit in the last place (master_split.h).
  const at::Tensor joined = JoinMasters(high, low);
  EXPECT_LE(at::ne(joined, whole).sum().item<int64_t>(), 20);
  EXPECT_LE((joined - whole).abs().max().item<float>(), 1e-6);
  EXPECT_TRUE(at::equal(high, whole.to(at::kBFloat16)));
  EXPECT_TRUE(at::equal(split_m, m));
  EXPECT_TRUE(at::equal(split_v, v));
}

TEST(AdamWUpdate, RepeatedOnAnyNumberOfThreads_IsBitIdentical) {
  at::manual_seed(3);
  const at::Tensor master = at::randn({200001}), gradient = at::randn({200001});
  ExpectSameBits(/*any_number_of_threads=*/true, [&] {
    at::Tensor updated = master.clone(), m = at::ones_like(master), v = at::ones_like(master);
    AdamWUpdate(updated, gradient, m, v, {.learning_rate = 1e-2, .weight_decay = 0.1, .step = 3});
    return std::vector<at::Tensor>{updated, m, v};
  });
}

}  // namespace
}  // namespace temper::ops
