// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/ops/cuda/cuda_check.h"

namespace temper::ops {
namespace {

struct Case {
  std::vector<int64_t> sizes;
  NormConfig config;
};

class CudaRmsNormTest : public testing::TestWithParam<Case> {};

TEST_P(CudaRmsNormTest, OutputAndGradients_EqualReference) {
  at::manual_seed(1);
  const auto& [sizes, config] = GetParam();
  const std::vector<at::Tensor> inputs = {Random(sizes) * 3, at::rand({sizes.back()}, at::kCUDA) + 0.5};
  const Operator op = [&](const auto& in) { return tested::RmsNorm(in[0], in[1], config); };
  const Operator reference = [&](const auto& in) {
    return in[0] * (in[0].square().mean(-1, true) + config.epsilon).rsqrt() * (in[1] + config.weight_offset);
  };
  ExpectRightAndRepeatable(op, reference, inputs, at::kFloat, 1e-6);
  ExpectRightAndRepeatable(op, reference, inputs, at::kBFloat16, 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaRmsNormTest,
                         testing::Values(Case{{1, 16}, {}}, Case{{7, 33}, {}}, Case{{1, 8}, {}}, Case{{64, 576}, {}},
                                         Case{{1000, 9, 128}, {}}, Case{{300, 3, 96}, {}}, Case{{1500, 4096}, {}},
                                         Case{{33, 16384}, {}}, Case{{20, 2305}, {}},
                                         Case{{70, 2304}, {.weight_offset = 1}}, Case{{70, 256}, {.weight_offset = 1}},
                                         Case{{40, 2880}, {.rounds_once = true}}));

TEST(CudaRmsNorm, FrozenWeight_LeavesTheOtherGradientAsItIs) {
  const at::Tensor x = Random({50, 2048}).requires_grad_(), weight = Random({2048}), grad = Random({50, 2048});
  const at::Tensor frozen = torch::autograd::grad({tested::RmsNorm(x, weight, {})}, {x}, {grad})[0];
  const at::Tensor trained_weight = weight.clone().requires_grad_();
  const auto both = torch::autograd::grad({tested::RmsNorm(x, trained_weight, {})}, {x, trained_weight}, {grad});
  EXPECT_LE(RelativeError(frozen, both[0]), 1e-7);
  const auto weight_alone =
      torch::autograd::grad({tested::RmsNorm(x.detach(), trained_weight, {})}, {trained_weight}, {grad});
  EXPECT_LE(RelativeError(weight_alone[0], both[1]), 1e-7);
}

TEST(CudaRmsNorm, Bf16_RoundsWhereTheReferenceModelsDo) {
  const at::Tensor x = Random({64, 4096}).to(at::kBFloat16), weight = Random({4096}).to(at::kBFloat16);
  const at::Tensor scale = (x.to(at::kFloat).square().mean(-1, true) + 1e-6).rsqrt();
  const at::Tensor twice = (x.to(at::kFloat) * scale).to(at::kBFloat16) * weight;
  const at::Tensor once = (x.to(at::kFloat) * scale * weight.to(at::kFloat)).to(at::kBFloat16);
  // The two scales can differ in the last bit of fp32, which turns a rounding now and then.
  EXPECT_LE(tested::RmsNorm(x, weight, {}).ne(twice).to(at::kFloat).mean().item<float>(), 1e-3);
  EXPECT_LE(tested::RmsNorm(x, weight, {.rounds_once = true}).ne(once).to(at::kFloat).mean().item<float>(), 1e-3);
}

}  // namespace
}  // namespace temper::ops
