// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/ops/cuda/cuda_check.h"

namespace temper::ops {
namespace {

class CudaAdamWTest : public testing::TestWithParam<int64_t> {};

TEST_P(CudaAdamWTest, ManySteps_EqualTheFormulasInDoublePrecision) {
  at::manual_seed(1);
  const int64_t size = GetParam();
  at::Tensor master = Random({size}), m = at::zeros_like(master), v = at::zeros_like(master);
  at::Tensor master64 = master.to(at::kDouble), m64 = m.to(at::kDouble), v64 = v.to(at::kDouble);
  for (int64_t step = 1; step <= 20; ++step) {
    const at::Tensor gradient = Random({size});
    const AdamWCoefficients c = {
        .learning_rate = 1e-2, .weight_decay = 0.1, .step = step, .gradient_scale = step % 2 ? 1.0 : 0.5};
    tested::AdamWUpdate(master, gradient, m, v, c);
    const at::Tensor gradient64 = gradient.to(at::kDouble) * c.gradient_scale;
    master64 *= 1 - c.learning_rate * c.weight_decay;
    m64 = c.beta1 * m64 + (1 - c.beta1) * gradient64;
    v64 = c.beta2 * v64 + (1 - c.beta2) * gradient64.square();
    const at::Tensor m_hat = m64 / (1 - std::pow(c.beta1, step)), v_hat = v64 / (1 - std::pow(c.beta2, step));
    master64 -= c.learning_rate * m_hat / (v_hat.sqrt() + c.epsilon);
  }
  EXPECT_LE(RelativeError(master, master64), 1e-6);
  EXPECT_LE(RelativeError(m, m64), 1e-6);
  EXPECT_LE(RelativeError(v, v64), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaAdamWTest, testing::Values(1, 37, 4096, 100003, 1 << 20));

}  // namespace
}  // namespace temper::ops
