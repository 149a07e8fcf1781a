// SPDX-License-Identifier: Apache-2.0
#include "worker/train/preference_objective.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

// Two pairs: answers of 3 and 1, and of 2 and 4 scored tokens.
ScoredDocuments TwoPairs() {
  return {.starts = {0, 3, 4, 6, 10},
          .reference_S = at::tensor({-1.0, -0.5, -2.0, -0.7, -1.5, -0.3, -0.2, -2.5, -1.0, -0.4}, at::kFloat)};
}

at::Tensor Logprobs() { return at::tensor({-0.8, -0.6, -1.1, -1.9, -1.0, -0.7, -0.9, -1.7, -0.6, -0.1}, at::kFloat); }

struct Case {
  std::string name;
  PreferenceOptions options;
};

class PreferenceObjectiveTest : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(
    Losses, PreferenceObjectiveTest,
    testing::Values(Case{"Sigmoid", {.beta = 0.5}}, Case{"Smoothed", {.beta = 0.5, .label_smoothing = 0.2}},
                    Case{"SigmoidByLength", {.beta = 2, .length_normalized = true}},
                    Case{"Ipo", {.loss = PreferenceLoss::kIpo, .beta = 0.7}},
                    Case{"Hinge", {.loss = PreferenceLoss::kHinge, .beta = 0.3}},
                    Case{"HingeByLength", {.loss = PreferenceLoss::kHinge, .beta = 0.3, .length_normalized = true}},
                    Case{"SimPo", {.loss = PreferenceLoss::kSimPo, .beta = 2, .label_smoothing = 0.1, .margin = 0.7}},
                    Case{"Orpo", {.loss = PreferenceLoss::kOrpo, .beta = 0.4}}),
    [](const auto& each) { return each.param.name; });

TEST_P(PreferenceObjectiveTest, Coefficients_AreTheLossesDerivatives) {
  const PreferenceObjective objective(GetParam().options);
  const ScoredDocuments documents = TwoPairs();
  const at::Tensor coefficient_S = objective.Evaluate(Logprobs(), documents, 2).coefficient_S;
  constexpr double kStep = 1e-3;
  for (int64_t row = 0; row < Logprobs().size(0); ++row) {
    const auto loss = [&](double step) {
      const at::Tensor logprobs_S = Logprobs().to(at::kDouble);
      logprobs_S[row] += step;
      return objective.Evaluate(logprobs_S, documents, 2).loss;
    };
    EXPECT_NEAR(coefficient_S[row].item<double>(), (loss(kStep) - loss(-kStep)) / (2 * kStep), 1e-6) << row;
  }
}

TEST_P(PreferenceObjectiveTest, PairsOfMicroBatches_AddUp) {
  const PreferenceObjective objective(GetParam().options);
  const ScoredDocuments both = TwoPairs();
  const ScoredDocuments first = {.starts = {0, 3, 4}, .reference_S = both.reference_S.narrow(0, 0, 4)};
  const ScoredDocuments second = {.starts = {0, 2, 6}, .reference_S = both.reference_S.narrow(0, 4, 6)};
  const auto whole = objective.Evaluate(Logprobs(), both, 2);
  const auto a = objective.Evaluate(Logprobs().narrow(0, 0, 4), first, 2);
  const auto b = objective.Evaluate(Logprobs().narrow(0, 4, 6), second, 2);
  EXPECT_DOUBLE_EQ(whole.loss, a.loss + b.loss);
  EXPECT_TRUE(at::equal(whole.coefficient_S, at::cat({a.coefficient_S, b.coefficient_S})));
  ASSERT_EQ(whole.sums.size(), objective.num_sums());
  for (size_t i = 0; i < whole.sums.size(); ++i) EXPECT_DOUBLE_EQ(whole.sums[i], a.sums[i] + b.sums[i]);
}

double LogSigmoid(double x) { return -std::log1p(std::exp(-x)); }

TEST(PreferenceObjective, LossAndFigures_AreThoseOfTheFormulas) {
  const PreferenceObjective objective({.beta = 0.5});
  const auto evaluation = objective.Evaluate(Logprobs(), TwoPairs(), 2);
  // log π − log π_ref of the answers: −2.5 + 3.5, −1.9 + 0.7; −1.7 + 1.8, −3.3 + 4.1.
  EXPECT_NEAR(evaluation.loss, -(LogSigmoid(0.5 * 2.2) + LogSigmoid(0.5 * -0.7)) / 2, 1e-6);
  const auto near = [](double value) { return testing::DoubleNear(value, 1e-6); };
  const double squares = 0.04 + 0.01 + 0.81 + 1.44 + 0.25 + 0.16 + 0.49 + 0.64 + 0.16 + 0.09;
  EXPECT_THAT(objective.Figures(evaluation.sums),
              ElementsAre(Pair("kl", near(squares / 2 / 10)), Pair("logps/chosen", near((-2.5 - 1.7) / 2)),
                          Pair("logps/rejected", near((-1.9 - 3.3) / 2)), Pair("rewards/accuracies", near(0.5)),
                          Pair("rewards/chosen", near(0.5 * (1.0 + 0.1) / 2)),
                          Pair("rewards/margins", near(0.5 * (2.2 - 0.7) / 2)),
                          Pair("rewards/rejected", near(0.5 * (-1.2 + 0.8) / 2))));
}

TEST(PreferenceObjective, WithoutAReference_RewardsAreByLength) {
  const PreferenceObjective objective({.loss = PreferenceLoss::kSimPo, .beta = 2, .margin = 1});
  EXPECT_EQ(objective.reference(), Reference::kNone);
  const auto evaluation = objective.Evaluate(Logprobs(), {.starts = {0, 3, 4, 6, 10}, .reference_S = {}}, 2);
  const double first = 2 * (-2.5 / 3 + 1.9) - 1, second = 2 * (-1.7 / 2 + 3.3 / 4) - 1;
  EXPECT_NEAR(evaluation.loss, -(LogSigmoid(first) + LogSigmoid(second)) / 2, 1e-6);
  const auto figures = objective.Figures(evaluation.sums);
  EXPECT_NEAR(figures.at("rewards/chosen"), 2 * (-2.5 / 3 - 1.7 / 2) / 2, 1e-6);
  EXPECT_NEAR(figures.at("logps/rejected"), (-1.9 - 3.3 / 4) / 2, 1e-6);
  EXPECT_FALSE(figures.contains("kl"));
}

TEST(PreferenceObjective, CertainAnswer_HasFiniteOdds) {
  const PreferenceObjective objective({.loss = PreferenceLoss::kOrpo});
  const auto evaluation = objective.Evaluate(at::tensor({0.0, -1.0}, at::kFloat), {.starts = {0, 1, 2}}, 1);
  EXPECT_TRUE(std::isfinite(evaluation.loss));
  EXPECT_TRUE(at::isfinite(evaluation.coefficient_S).all().item<bool>());
}

TEST(PreferenceObjective, Count_IsThatOfPairs) {
  const PreferenceObjective objective({});
  EXPECT_EQ(objective.Count({.document_starts = {0, 2, 5, 7, 9}}), 2);
  EXPECT_EQ(objective.Count({}), 0);
  const auto evaluation = objective.Evaluate(at::empty({0}), {.starts = {0}, .reference_S = at::empty({0})}, 1);
  EXPECT_EQ(evaluation.loss, 0);
  EXPECT_EQ(evaluation.coefficient_S.size(0), 0);
}

}  // namespace
}  // namespace temper
