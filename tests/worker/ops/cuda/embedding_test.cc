// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/ops/cuda/cuda_check.h"

namespace temper::ops {
namespace {

struct Case {
  int64_t tokens, vocab, width;
};

class CudaEmbeddingTest : public testing::TestWithParam<Case> {};

TEST_P(CudaEmbeddingTest, Gradient_IsTheSumInTheOrderOfTheTokens) {
  at::manual_seed(1);
  const auto [tokens, vocab, width] = GetParam();
  const at::Tensor tokens_T = at::randint(vocab, {tokens}, at::kLong);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor grad_TD = Random({tokens, width}).to(dtype), before_VD = Random({vocab, width});
    at::Tensor sum_VD = before_VD.clone();
    tested::EmbeddingBackward(grad_TD, tokens_T.to(at::kCUDA), sum_VD);
    // On a CPU index_add_ goes from token to token: the same sums in the same order are the same bits.
    const at::Tensor expected_VD = before_VD.cpu().index_add_(0, tokens_T, grad_TD.cpu().to(at::kFloat));
    EXPECT_TRUE(at::equal(sum_VD.cpu(), expected_VD));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaEmbeddingTest,
                         testing::Values(Case{1, 1, 1}, Case{40, 7, 33}, Case{500, 20, 576}, Case{2000, 50000, 128},
                                         Case{300, 2, 4096}));

}  // namespace
}  // namespace temper::ops
