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

// Both results are looked at, as a block does; the weights of the sum tell them apart.
at::Tensor Both(const at::Tensor& sum, const at::Tensor& normed) { return sum * 0.7 + normed; }

TEST_P(RmsNormTest, OfASum_OutputsAndGradients_EqualReference) {
  at::manual_seed(1);
  const auto [tokens, width] = GetParam();
  const std::vector<at::Tensor> inputs = {at::randn({tokens, width}), at::randn({tokens, width}),
                                          at::rand({width}) + 0.5};
  const NormConfig configs[] = {{.epsilon = 1e-5}, {.epsilon = 1e-2, .weight_offset = 1}, {.rounds_once = true}};
  for (const NormConfig& config : configs) {
    const Operator op = [&](const auto& in) {
      const auto [sum, normed] = AddRmsNorm(in[0], in[1], in[2], config);
      return Both(sum, normed);
    };
    const Operator reference = [&](const auto& in) {
      const at::Tensor sum = in[0] + in[1];
      return Both(sum, Reference({sum, in[2]}, config));
    };
    ExpectEqualsReference(op, reference, inputs, at::kFloat, 1e-6);
    ExpectEqualsReference(op, reference, inputs, at::kBFloat16, 1e-2);
  }
}

// The last block of a frozen model: nobody asks for the gradient of the sum.
TEST(RmsNorm, OfASumThatNobodyElseReads_GradientIsTheNorms) {
  at::manual_seed(1);
  const std::vector<at::Tensor> inputs = {at::randn({5, 32}), at::randn({5, 32}), at::rand({32}) + 0.5};
  const Operator op = [](const auto& in) { return AddRmsNorm(in[0], in[1], in[2], {}).second; };
  const Operator reference = [](const auto& in) { return Reference({in[0] + in[1], in[2]}, {}); };
  ExpectEqualsReference(op, reference, inputs, at::kFloat, 1e-6);
}

// One rounding, to the bits of the two operators.
TEST(RmsNorm, OfASum_ForwardIsThatOfTheTwoOperators) {
  at::manual_seed(1);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({33, 100}).to(dtype), update = at::randn({33, 100}).to(dtype);
    const at::Tensor weight = at::rand({100}).to(dtype);
    const auto [sum, normed] = AddRmsNorm(x, update, weight, {});
    EXPECT_TRUE(at::equal(sum, x + update));
    EXPECT_TRUE(at::equal(normed, RmsNorm(x + update, weight, {})));
  }
}

// Heads that stand apart, as they do in a projection for queries, keys and values; some dimensions are not rotated.
class RmsNormRopeTest : public testing::TestWithParam<int64_t> {};

TEST_P(RmsNormRopeTest, IsTheNormAndThenTheRotation) {
  at::manual_seed(1);
  const int64_t tokens = 70, heads = 3, width = GetParam();
  for (const double rotated_share : {1.0, 0.5}) {
    const RopeTable table = MakeRopeTable({.rotated_share = rotated_share}, width, at::arange(tokens), {0, tokens});
    const std::vector<at::Tensor> inputs = {at::randn({tokens, 5 * width}), at::rand({width}) + 0.5};
    const auto heads_of = [&](const at::Tensor& x) {
      return x.narrow(1, width, heads * width).unflatten(1, {heads, width});
    };
    for (const NormConfig& config : {NormConfig{}, NormConfig{.weight_offset = 1}}) {
      const Operator op = [&](const auto& in) { return RmsNormRope(heads_of(in[0]), in[1], config, table); };
      const Operator reference = [&](const auto& in) {
        const RopeTable wide = {table.cos_Th.to(at::kDouble), table.sin_Th.to(at::kDouble)};
        const at::Tensor x = Reference({heads_of(in[0]), in[1]}, config);
        const int64_t half = wide.cos_Th.size(1);
        const at::Tensor cos = wide.cos_Th.unsqueeze(1), sin = wide.sin_Th.unsqueeze(1);
        const at::Tensor first = x.narrow(2, 0, half), second = x.narrow(2, half, half);
        return at::cat({first * cos - second * sin, second * cos + first * sin, x.slice(2, 2 * half)}, 2);
      };
      ExpectEqualsReference(op, reference, inputs, at::kFloat, 1e-6);
      ExpectEqualsReference(op, reference, inputs, at::kBFloat16, 1e-2);
      // Forward, to the bit; backward rounds once less.
      for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        const at::Tensor x = heads_of(inputs[0].to(dtype)), weight = inputs[1].to(dtype);
        EXPECT_TRUE(at::equal(RmsNormRope(x, weight, config, table), ApplyRope(RmsNorm(x, weight, config), table)));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Widths, RmsNormRopeTest, testing::Values(8, 64, 80, 128, 256));

TEST(RmsNormRope, RepeatedOnAnyNumberOfThreads_IsBitIdentical) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({333, 4, 64}), weight = at::rand({64}), grad = at::randn({333, 4, 64});
  const RopeTable table = MakeRopeTable({}, 64, at::arange(333), {0, 333});
  ExpectSameBits(cpu::CanRmsNormRope(x, weight), [&] {
    const std::vector<at::Tensor> in = {x.detach().requires_grad_(), weight.detach().requires_grad_()};
    const at::Tensor out = RmsNormRope(in[0], in[1], {}, table);
    std::vector<at::Tensor> results = torch::autograd::grad({out}, in, {grad});
    results.push_back(out);
    return results;
  });
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
