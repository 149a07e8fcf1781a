// SPDX-License-Identifier: Apache-2.0
// The angles themselves are compared with transformers' in tests/worker/families/test_rope.py.
#include "worker/ops/rope.h"

#include "tests/worker/ops/reference_check.h"

namespace temper::ops {
namespace {

at::Tensor Reference(const at::Tensor& x_THd, const RopeTable& table) {
  const int64_t half = table.cos_Th.size(1);
  const std::vector<at::Tensor> halves = x_THd.narrow(-1, 0, 2 * half).split(half, -1);
  const at::Tensor cos = table.cos_Th.unsqueeze(1).to(at::kDouble), sin = table.sin_Th.unsqueeze(1).to(at::kDouble);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin, x_THd.slice(-1, 2 * half)}, -1);
}

TEST(Rope, OutputAndGradients_EqualReference) {
  at::manual_seed(1);
  const at::Tensor positions_T = at::arange(11);
  for (const double rotated_share : {1.0, 0.5}) {
    const RopeTable table = MakeRopeTable({.rotated_share = rotated_share}, 8, positions_T, {0, 11});
    EXPECT_EQ(table.cos_Th.size(1), 4 * rotated_share);
    const Operator op = [&](const auto& in) { return ApplyRope(in[0], table); };
    const Operator reference = [&](const auto& in) { return Reference(in[0], table); };
    ExpectEqualsReference(op, reference, {at::randn({11, 3, 8})}, at::kFloat, 1e-6);
    ExpectEqualsReference(op, reference, {at::randn({11, 3, 8})}, at::kBFloat16, 1e-2);
  }
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

TEST(Rope, LongRope_DividesByOtherFactorsInLongDocuments) {
  const RopeConfig config = {.kind = RopeConfig::Kind::kLongRope,
                             .original_max_positions = 16,
                             .short_factors = {1, 1, 1, 2},
                             .long_factors = {4, 4, 4, 8}};
  const at::Tensor base = RopeInverseFrequencies({}, 8, 0);
  EXPECT_LE(RelativeError(RopeInverseFrequencies(config, 8, 16), base / at::tensor({1, 1, 1, 2})), 1e-6);
  EXPECT_LE(RelativeError(RopeInverseFrequencies(config, 8, 17), base / at::tensor({4, 4, 4, 8})), 1e-6);
  // Each document by its own length.
  const RopeTable table = MakeRopeTable(config, 8, at::cat({at::arange(20), at::arange(3)}), {0, 20, 23});
  EXPECT_LE(RelativeError(table.sin_Th.select(0, 1), (base / at::tensor({4, 4, 4, 8})).sin()), 1e-6);
  EXPECT_LE(RelativeError(table.sin_Th.select(0, 21), (base / at::tensor({1, 1, 1, 2})).sin()), 1e-6);
}

}  // namespace
}  // namespace temper::ops
