// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/sum_of_squares.h"

#include "tests/worker/ops/reference_check.h"
#include "tests/worker/ops/repeatable.h"
#include "worker/ops/cpu/operators.h"

namespace temper::ops {
namespace {

TEST(SumOfSquares, SizesAroundItsBlocks_EqualReference) {
  at::manual_seed(1);
  for (const int64_t size : {0, 1, 17, 64, 4095, 4097, 65536, 65537, 1000003}) {
    const at::Tensor x = at::randn({size}) * 100;
    EXPECT_LE(RelativeError(SumOfSquares(x), x.to(at::kDouble).square().sum()), 1e-6) << size;
  }
}

// One large number among many small ones: a long sum in fp32 would lose those.
TEST(SumOfSquares, ManySmallNumbers_AreNotLost) {
  at::Tensor x = at::full({1 << 22}, 1e-3);
  x[0] = 300;
  EXPECT_LE(RelativeError(SumOfSquares(x), x.to(at::kDouble).square().sum()), 1e-6);
}

TEST(SumOfSquares, NotANumber_Stays) {
  at::Tensor x = at::zeros({100000});
  x[77777] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(at::isnan(SumOfSquares(x)).item<bool>());
}

TEST(SumOfSquares, RepeatedOnAnyNumberOfThreads_IsBitIdentical) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({333333});
  ExpectSameBits(cpu::CanSumOfSquares(x), [&] { return std::vector<at::Tensor>{SumOfSquares(x)}; });
}

}  // namespace
}  // namespace temper::ops
