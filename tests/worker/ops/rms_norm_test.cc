// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/rms_norm.h"

#include "tests/worker/ops/reference_check.h"

namespace temper::ops {
namespace {

at::Tensor Reference(const std::vector<at::Tensor>& in) {
  return in[0] * (in[0].square().mean(-1, true) + 1e-5).rsqrt() * in[1];
}

class RmsNormTest : public testing::TestWithParam<std::pair<int64_t, int64_t>> {};

TEST_P(RmsNormTest, OutputAndGradients_EqualReference) {
  at::manual_seed(1);
  const auto [tokens, width] = GetParam();
  const std::vector<at::Tensor> inputs = {at::randn({tokens, width}), at::rand({width}) + 0.5};
  const Operator op = [](const auto& in) { return RmsNorm(in[0], in[1], 1e-5); };
  ExpectEqualsReference(op, Reference, inputs, at::kFloat, 1e-6);
  ExpectEqualsReference(op, Reference, inputs, at::kBFloat16, 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNormTest, testing::Values(std::pair{1, 16}, std::pair{7, 33}, std::pair{64, 576}));

}  // namespace
}  // namespace temper::ops
