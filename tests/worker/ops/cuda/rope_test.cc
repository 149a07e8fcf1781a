// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/ops/cuda/cuda_check.h"

namespace temper::ops {
namespace {

struct Case {
  int64_t tokens, heads, width;
  double rotated_share = 1.0;
};

class CudaRopeTest : public testing::TestWithParam<Case> {};

RopeTable Table(const Case& c) {
  return MakeRopeTable({.rotated_share = c.rotated_share}, c.width, at::arange(c.tokens, at::kCUDA), {0, c.tokens});
}

at::Tensor Reference(const at::Tensor& x_THd, const RopeTable& table) {
  const int64_t half = table.cos_Th.size(1);
  const at::Tensor first = x_THd.narrow(-1, 0, half), second = x_THd.narrow(-1, half, half);
  const at::Tensor cos = table.cos_Th.unsqueeze(1).to(at::kDouble), sin = table.sin_Th.unsqueeze(1).to(at::kDouble);
  return at::cat({first * cos - second * sin, second * cos + first * sin, x_THd.slice(-1, 2 * half)}, -1);
}

TEST_P(CudaRopeTest, OutputAndGradients_EqualReference) {
  at::manual_seed(1);
  const Case& c = GetParam();
  const RopeTable table = Table(c);
  const Operator op = [&](const auto& in) { return tested::ApplyRope(in[0], table); };
  const Operator reference = [&](const auto& in) { return Reference(in[0], table); };
  ExpectRightAndRepeatable(op, reference, {Random({c.tokens, c.heads, c.width})}, at::kFloat, 1e-6);
  ExpectRightAndRepeatable(op, reference, {Random({c.tokens, c.heads, c.width})}, at::kBFloat16, 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaRopeTest,
                         testing::Values(Case{1, 1, 8}, Case{11, 3, 8}, Case{100, 9, 64}, Case{513, 32, 128},
                                         Case{77, 5, 256}, Case{31, 7, 80}, Case{40, 2, 6}, Case{64, 8, 96, 0.5},
                                         Case{50, 3, 20, 0.4}, Case{9, 300, 32}));

TEST(CudaRope, HeadsOfAFusedProduct_AreReadWhereTheyLie) {
  const Case c = {60, 4, 64};
  const at::Tensor qkv = Random({c.tokens, 6, c.width}).to(at::kBFloat16);
  const at::Tensor heads = qkv.narrow(1, 1, c.heads);
  const RopeTable table = Table(c);
  EXPECT_TRUE(at::equal(tested::ApplyRope(heads, table), tested::ApplyRope(heads.contiguous(), table)));
}

}  // namespace
}  // namespace temper::ops
