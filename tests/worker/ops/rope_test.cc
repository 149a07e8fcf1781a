// SPDX-License-Identifier: Apache-2.0
// The angles themselves are compared with transformers' in tests/parity.
#include "worker/ops/rope.h"

#include "tests/worker/ops/reference_check.h"

namespace temper::ops {
namespace {

at::Tensor Reference(const at::Tensor& x_THd, const RopeTable& table) {
  const std::vector<at::Tensor> halves = x_THd.chunk(2, -1);
  const at::Tensor cos = table.cos_Th.unsqueeze(1).to(at::kDouble), sin = table.sin_Th.unsqueeze(1).to(at::kDouble);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

TEST(Rope, OutputAndGradients_EqualReference) {
  at::manual_seed(1);
  const at::Tensor positions_T = at::arange(11);
  const RopeTable table = MakeRopeTable({}, 8, positions_T, {0, 11});
  const Operator op = [&](const auto& in) { return ApplyRope(in[0], table); };
  const Operator reference = [&](const auto& in) { return Reference(in[0], table); };
  ExpectEqualsReference(op, reference, {at::randn({11, 3, 8})}, at::kFloat, 1e-6);
  ExpectEqualsReference(op, reference, {at::randn({11, 3, 8})}, at::kBFloat16, 1e-2);
}

TEST(Rope, Position0_LeavesInputAsItIs) {
  const at::Tensor x_THd = at::randn({1, 2, 8});
  EXPECT_TRUE(at::equal(ApplyRope(x_THd, MakeRopeTable({}, 8, at::zeros({1}, at::kLong), {0, 1})), x_THd));
}

TEST(Rope, Dynamic_StretchesOnlyDocumentsLongerThanTheOriginalContext) {
  const RopeConfig config = {.kind = RopeConfig::Kind::kDynamic, .factor = 2.0, .original_max_positions = 16};
  const at::Tensor base = RopeInverseFrequencies({}, 8, 0);
  EXPECT_LE(RelativeError(RopeInverseFrequencies(config, 8, 16), base), 1e-6);
  EXPECT_GE(RelativeError(RopeInverseFrequencies(config, 8, 32), base), 1e-3);
}

}  // namespace
}  // namespace temper::ops
