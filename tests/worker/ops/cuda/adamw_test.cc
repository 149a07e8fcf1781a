// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/ops/cuda/cuda_check.h"
#include "worker/ops/split_masters.h"

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

// A master in two halves is updated as if it were whole.
TEST_P(CudaAdamWTest, SplitMasters_EqualWholeOnes) {
  at::manual_seed(2);
  const int64_t size = GetParam();
  at::Tensor whole = Random({size}), m = at::zeros_like(whole), v = at::zeros_like(whole);
  at::Tensor high = at::empty_like(whole, at::kBFloat16), low = at::empty_like(whole, at::kShort);
  SplitMasters(whole, high, low);
  at::Tensor split_m = at::zeros_like(whole), split_v = at::zeros_like(whole);
  for (int64_t step = 1; step <= 5; ++step) {
    const at::Tensor gradient = Random({size});
    const AdamWCoefficients c = {.learning_rate = 1e-3, .weight_decay = 0.1, .step = step, .gradient_scale = 0.7};
    tested::AdamWUpdate(whole, gradient, m, v, c);
    tested::AdamWUpdateSplit(high, low, gradient, split_m, split_v, c);
  }
  // Ties move by a unit in the last place (master_split.h).
  const at::Tensor joined = JoinMasters(high, low);
  EXPECT_LE(at::ne(joined, whole).sum().item<int64_t>(), 2 + size / 5000);
  EXPECT_LE((joined - whole).abs().max().item<float>(), 1e-6);
  EXPECT_TRUE(at::equal(high, whole.to(at::kBFloat16)));
  EXPECT_TRUE(at::equal(split_m, m));
  EXPECT_TRUE(at::equal(split_v, v));
}

INSTANTIATE_TEST_SUITE_P(Sizes, CudaAdamWTest, testing::Values(1, 37, 4096, 100003, 1 << 20));

}  // namespace
}  // namespace temper::ops
