// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/rms_norm.h"

#include "tests/worker/ops/reference_check.h"
#include "tests/worker/ops/repeatable.h"
#include "worker/ops/cpu/operators.h"

namespace temper::ops {
namespace {

at::Tensor Reference(const std::vector<at::Tensor>& in, const NormConfig& config) {
  return in[0] * (in[0].square().mean(-1, true) + config.epsilon).rsqrt() * (in[1] + config.weight_offset);
}

class RmsNormTest : public testing::TestWithParam<std::pair<int64_t, int64_t>> {};

TEST_P(RmsNormTest, OutputAndGradients_EqualReference) {
  at::manual_seed(1);
  const auto [tokens, width] = GetParam();
  const std::vector<at::Tensor> inputs = {at::randn({tokens, width}), at::rand({width}) + 0.5};
  const NormConfig configs[] = {{.epsilon = 1e-5}, {.epsilon = 1e-2, .weight_offset = 1}, {.rounds_once = true}};
  for (const NormConfig& config : configs) {
    const Operator op = [&](const auto& in) { return RmsNorm(in[0], in[1], config); };
    const Operator reference = [&](const auto& in) { return Reference(in, config); };
    ExpectEqualsReference(op, reference, inputs, at::kFloat, 1e-6);
    ExpectEqualsReference(op, reference, inputs, at::kBFloat16, 1e-2);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNormTest, testing::Values(std::pair{1, 16}, std::pair{7, 33}, std::pair{64, 576}));

TEST(RmsNorm, ThreeDimensions_AreNormedOverTheLast) {
  at::manual_seed(1);
  const std::vector<at::Tensor> inputs = {at::randn({5, 3, 8}), at::rand({8}) + 0.5};
  const Operator op = [](const auto& in) { return RmsNorm(in[0], in[1], {}); };
  ExpectEqualsReference(op, [](const auto& in) { return Reference(in, {}); }, inputs, at::kFloat, 1e-6);
}

TEST(RmsNorm, RepeatedOnAnyNumberOfThreads_IsBitIdentical) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    at::manual_seed(1);
    const at::Tensor x = at::randn({333, 100}).to(dtype), weight = at::rand({100}).to(dtype);
    const at::Tensor grad = at::randn({333, 100}).to(dtype);
    ExpectSameBits(cpu::CanRmsNorm(x, weight), [&] {
      const std::vector<at::Tensor> in = {x.detach().requires_grad_(), weight.detach().requires_grad_()};
      const at::Tensor out = RmsNorm(in[0], in[1], {});
      std::vector<at::Tensor> results = torch::autograd::grad({out}, in, {grad});
      results.push_back(out);
      return results;
    });
  }
}

}  // namespace
}  // namespace temper::ops
