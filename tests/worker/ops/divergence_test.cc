// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/divergence.h"

#include "tests/worker/ops/divergence_reference.h"
#include "tests/worker/ops/reference_check.h"

namespace temper::ops {
namespace {

constexpr int64_t kVocab = 90;

class DivergenceTest : public testing::TestWithParam<DivergenceCase> {};

INSTANTIATE_TEST_SUITE_P(Kinds, DivergenceTest, testing::ValuesIn(DivergenceCases()),
                         [](const auto& each) { return each.param.name; });

TEST_P(DivergenceTest, RowsAndGradient_EqualReference) {
  at::manual_seed(1);
  const at::Tensor student_CV = at::randn({5, kVocab}) * 3, teacher_CV = at::randn({5, kVocab}) * 3;
  const at::Tensor student64 = student_CV.to(at::kDouble).requires_grad_();
  const at::Tensor expected = DivergenceReference(student64, teacher_CV.to(at::kDouble), GetParam().config);
  const auto grads = torch::autograd::grad({expected}, {student64});
  at::Tensor grad_CV;
  const at::Tensor divergence_C = Divergence(student_CV, teacher_CV.clone(), GetParam().config, &grad_CV);
  EXPECT_EQ(divergence_C.sizes(), at::IntArrayRef({5}));
  EXPECT_LE(RelativeError(divergence_C.sum(), expected), 1e-6);
  EXPECT_LE(RelativeError(grad_CV, grads[0]), 2e-6);
  EXPECT_TRUE(at::equal(Divergence(student_CV, teacher_CV.clone(), GetParam().config), divergence_C));
}

TEST_P(DivergenceTest, EqualDistributions_HaveNone) {
  at::manual_seed(2);
  const at::Tensor logits_CV = at::randn({3, kVocab}) * 3;
  at::Tensor grad_CV;
  const at::Tensor divergence_C = Divergence(logits_CV, logits_CV + 5, GetParam().config, &grad_CV);
  EXPECT_LE(divergence_C.abs().max().item<double>(), 1e-6);
  EXPECT_LE(grad_CV.abs().max().item<double>(), 1e-6);
}

// What a token is to neither model must not become 0 · ∞.
TEST_P(DivergenceTest, ImprobableTokens_AreFinite) {
  const at::Tensor student_CV = at::tensor({0.0F, -300.0F, 4.0F}).unsqueeze(0);
  const at::Tensor teacher_CV = at::tensor({-300.0F, -300.0F, 1.0F}).unsqueeze(0);
  at::Tensor grad_CV;
  EXPECT_TRUE(Divergence(student_CV, teacher_CV.clone(), GetParam().config, &grad_CV).isfinite().all().item<bool>());
  EXPECT_TRUE(grad_CV.isfinite().all().item<bool>());
}

}  // namespace
}  // namespace temper::ops
