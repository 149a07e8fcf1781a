// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/matmul.h"

#include "tests/worker/ops/reference_check.h"
#include "tests/worker/ops/repeatable.h"
#include "worker/ops/cpu/operators.h"

namespace temper::ops {
namespace {

struct Shape {
  int64_t m, k, n;
};

class MatMulTest : public testing::TestWithParam<Shape> {};

at::Tensor Random(int64_t rows, int64_t columns, bool transposed) {
  return transposed ? at::randn({columns, rows}).t() : at::randn({rows, columns});
}

at::Tensor Product(const at::Tensor& a, const at::Tensor& b) {
  return at::matmul(a.to(at::kDouble), b.to(at::kDouble));
}

TEST_P(MatMulTest, AnyLayout_EqualsReference) {
  const auto [m, k, n] = GetParam();
  at::manual_seed(1);
  for (const auto& [a_transposed, b_transposed] :
       {std::pair{false, false}, {true, false}, {false, true}, {true, true}}) {
    const at::Tensor a = Random(m, k, a_transposed), b = Random(k, n, b_transposed);
    EXPECT_LE(RelativeError(InPoisonedMemory([&] { return MatMul(a, b); }), Product(a, b)), 2e-6);
  }
}

// Of a wider matrix, as an adapter's rows are.
TEST_P(MatMulTest, AddedToSomeColumns_LeavesTheOthers) {
  const auto [m, k, n] = GetParam();
  at::manual_seed(2);
  const at::Tensor a = at::randn({m, k + 3}).narrow(1, 2, k), b = at::randn({k, n + 5}).narrow(1, 1, n);
  const at::Tensor wide = at::randn({m, n + 7}), before = wide.clone();
  AddMatMul(wide.narrow(1, 4, n), a, b);
  EXPECT_LE(RelativeError(wide.narrow(1, 4, n), Product(a, b) + before.narrow(1, 4, n)), 2e-6);
  EXPECT_TRUE(at::equal(wide.narrow(1, 0, 4), before.narrow(1, 0, 4)));
  EXPECT_TRUE(at::equal(wide.narrow(1, n + 4, 3), before.narrow(1, n + 4, 3)));
}

TEST_P(MatMulTest, Bf16IntoFp32_EqualsReference) {
  const auto [m, k, n] = GetParam();
  at::manual_seed(3);
  const at::Tensor a = Random(m, k, /*transposed=*/true).to(at::kBFloat16), b = at::randn({k, n}).to(at::kBFloat16);
  const at::Tensor c = at::randn({m, n}), before = c.clone();
  if (!cpu::CanMultiply(a, b, c)) return;  // without instructions for it, or for one row, ATen multiplies
  cpu::Multiply(a, b, c, /*add=*/true);
  EXPECT_LE(RelativeError(c, Product(a, b) + before), 2e-6);
}

// A last piece of every kind: of a panel, of a depth, of a length.
INSTANTIATE_TEST_SUITE_P(Shapes, MatMulTest,
                         testing::Values(Shape{1, 1, 1}, Shape{3, 2, 5}, Shape{65, 33, 130}, Shape{300, 520, 64},
                                         Shape{1030, 96, 70}, Shape{70, 1100, 1030}, Shape{64, 256, 1024},
                                         Shape{16, 300, 600}));

TEST(MatMul, LinearMapWithABias_EqualsReference) {
  at::manual_seed(4);
  const at::Tensor x = at::randn({37, 50}), weight = at::randn({70, 50}), bias = at::randn({70});
  const at::Tensor expected = Product(x, weight.t()) + bias;
  EXPECT_LE(RelativeError(LinearMap(x, weight, bias), expected), 2e-6);
  EXPECT_LE(RelativeError(LinearMap(x, weight, {}), expected - bias), 2e-6);
  const at::Tensor before = bias.clone();  // of one row, the bias expanded is the bias itself
  EXPECT_LE(RelativeError(LinearMap(x.narrow(0, 0, 1), weight, bias), expected.narrow(0, 0, 1)), 2e-6);
  EXPECT_TRUE(at::equal(bias, before));
  const auto bf16 = [](const at::Tensor& t) { return t.to(at::kBFloat16); };
  EXPECT_LE(RelativeError(LinearMap(bf16(x), bf16(weight), bf16(bias)), expected), 1e-2);
}

// With a number of rows that no block divides, and on threads that no panel divides.
TEST(MatMul, RepeatedOnAnyNumberOfThreads_IsBitIdentical) {
  at::manual_seed(5);
  const at::Tensor a = at::randn({1100, 333}), b = at::randn({333, 200}), c = at::randn({1100, 200});
  const auto bf16 = [](const at::Tensor& t) { return t.to(at::kBFloat16); };
  ExpectSameBits(cpu::CanMultiply(a, b, c), [&] {
    const at::Tensor sum = at::ones({333, 200}), bf16_sum = at::ones({333, 200});
    AddMatMul(sum, a.t(), c);
    if (cpu::CanMultiply(bf16(a).t(), bf16(c), bf16_sum)) cpu::Multiply(bf16(a).t(), bf16(c), bf16_sum, /*add=*/true);
    return std::vector<at::Tensor>{MatMul(a, b), MatMul(a, b.t().contiguous().t()), sum, bf16_sum};
  });
}

}  // namespace
}  // namespace temper::ops
