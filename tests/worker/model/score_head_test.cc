// SPDX-License-Identifier: Apache-2.0
#include "worker/model/score_head.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "worker/model/parameter_init.h"

namespace temper {
namespace {

constexpr int64_t kRows = 5, kHidden = 7;

class ScoreHeadTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  ScoreHeadTest() {
    at::manual_seed(3);
    InitParameter(weight_, "score.weight", {1, kHidden}, {.dtype = GetParam()});
    StoreMaster({"score.weight", &weight_, 0, 1}, at::randn({1, kHidden}));
    hidden_SD_ = at::randn({kRows, kHidden}).to(GetParam());
  }

  Parameter weight_;
  ScoreHead head_{&weight_};
  at::Tensor hidden_SD_;
  const at::Tensor targets_S_ = at::zeros({kRows}, at::kLong);
};

INSTANTIATE_TEST_SUITE_P(Dtypes, ScoreHeadTest, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& each) { return toString(each.param); });

TEST_P(ScoreHeadTest, Scores_AreProductsInFp32) {
  const at::Tensor expected_S = at::mv(hidden_SD_.to(at::kDouble), weight_.weight.detach().to(at::kDouble).squeeze(0));
  const at::Tensor scores_S = head_.TokenLogprobs(hidden_SD_, targets_S_);
  EXPECT_EQ(scores_S.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::allclose(scores_S.to(at::kDouble), expected_S, 1e-6, 1e-6));
  EXPECT_TRUE(at::equal(head_.Logits(hidden_SD_), scores_S.unsqueeze(1)));
}

TEST_P(ScoreHeadTest, Backward_IsAutogradsAndAddsUp) {
  const at::Tensor coefficient_S = at::randn({kRows});
  const at::Tensor hidden = hidden_SD_.to(at::kDouble).requires_grad_();
  const at::Tensor weight = weight_.weight.detach().to(at::kDouble).requires_grad_();
  const at::Tensor loss = (at::mv(hidden, weight.squeeze(0)) * coefficient_S.to(at::kDouble)).sum();
  const auto expected = torch::autograd::grad({loss}, {hidden, weight});

  const ops::LogprobGradients out = head_.Backward(hidden_SD_, targets_S_, coefficient_S, {});
  head_.Backward(hidden_SD_, targets_S_, coefficient_S, {});
  EXPECT_EQ(out.grad_hidden_SD.scalar_type(), GetParam());
  const double rounding = GetParam() == at::kFloat ? 1e-6 : 1e-2;
  EXPECT_TRUE(at::allclose(out.grad_hidden_SD.to(at::kDouble), expected[0], rounding, rounding));
  EXPECT_TRUE(at::allclose(weight_.gradient.to(at::kDouble), 2 * expected[1], 1e-5, 1e-5));
  EXPECT_TRUE(at::equal(out.logprobs_S, head_.TokenLogprobs(hidden_SD_, targets_S_)));
}

TEST_P(ScoreHeadTest, Backward_OfAFrozenWeight_LeavesItWithoutAGradient) {
  weight_.trainable = false;
  head_.Backward(hidden_SD_, targets_S_, at::ones({kRows}), {});
  EXPECT_FALSE(weight_.gradient.defined());
}

}  // namespace
}  // namespace temper
