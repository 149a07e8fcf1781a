// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/embedding.h"

#include "tests/worker/ops/reference_check.h"

namespace temper::ops {
namespace {

TEST(Embedding, RepeatedToken_GetsTheSumOfItsGradients) {
  const at::Tensor tokens_T = at::tensor({3, 1, 3}, at::kLong);
  const at::Tensor weight_VD = at::randn({5, 4});
  EXPECT_TRUE(at::equal(EmbeddingLookup(weight_VD, tokens_T)[2], weight_VD[3]));
  at::Tensor gradient_VD = at::zeros({5, 4});
  EmbeddingBackward(at::ones({3, 4}, at::kBFloat16), tokens_T, gradient_VD);
  EXPECT_TRUE(at::equal(gradient_VD.select(1, 0), at::tensor({0.f, 1.f, 0.f, 2.f, 0.f})));
}

}  // namespace
}  // namespace temper::ops
