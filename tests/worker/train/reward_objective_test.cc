// SPDX-License-Identifier: Apache-2.0
#include "worker/train/reward_objective.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace temper {
namespace {

using ::testing::DoubleNear;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

const ScoredDocuments kTwoPairs = {.starts = {0, 1, 2, 3, 4}, .reference_S = {}};

at::Tensor Rewards() { return at::tensor({0.5, -1.5, 0.25, 1.0}, at::kFloat); }

double LogSigmoid(double x) { return -std::log1p(std::exp(-x)); }

TEST(RewardObjective, LossAndFigures_AreThoseOfTheFormula) {
  const RewardObjective objective({.centering = 0.1});
  const auto evaluation = objective.Evaluate(Rewards(), kTwoPairs, 2);
  EXPECT_NEAR(evaluation.loss, (-LogSigmoid(2) - LogSigmoid(-0.75) + 0.1 * (1 + 1.25 * 1.25)) / 2, 1e-6);
  EXPECT_THAT(objective.Figures(evaluation.sums),
              UnorderedElementsAre(Pair("accuracy", 0.5), Pair("margin", DoubleNear((2 - 0.75) / 2, 1e-6)),
                                   Pair("mean_reward", DoubleNear(0.25 / 4, 1e-6))));
  EXPECT_THAT(objective.Extremes(evaluation.maxima),
              UnorderedElementsAre(Pair("max_reward", 1.0), Pair("min_reward", -1.5)));
}

TEST(RewardObjective, Coefficients_AreTheLossesDerivatives) {
  for (const double centering : {0.0, 0.2}) {
    const RewardObjective objective({.centering = centering});
    const at::Tensor coefficient_S = objective.Evaluate(Rewards(), kTwoPairs, 2).coefficient_S;
    constexpr double kStep = 1e-3;
    for (int64_t row = 0; row < 4; ++row) {
      const auto loss = [&](double step) {
        const at::Tensor rewards_S = Rewards().to(at::kDouble);
        rewards_S[row] += step;
        return objective.Evaluate(rewards_S, kTwoPairs, 2).loss;
      };
      EXPECT_NEAR(coefficient_S[row].item<double>(), (loss(kStep) - loss(-kStep)) / (2 * kStep), 1e-6) << row;
    }
  }
}

TEST(RewardObjective, PairsOfMicroBatches_AddUp) {
  const RewardObjective objective({.centering = 0.1});
  const ScoredDocuments one = {.starts = {0, 1, 2}, .reference_S = {}};
  const auto whole = objective.Evaluate(Rewards(), kTwoPairs, 2);
  const auto a = objective.Evaluate(Rewards().narrow(0, 0, 2), one, 2);
  const auto b = objective.Evaluate(Rewards().narrow(0, 2, 2), one, 2);
  EXPECT_DOUBLE_EQ(whole.loss, a.loss + b.loss);
  EXPECT_TRUE(at::equal(whole.coefficient_S, at::cat({a.coefficient_S, b.coefficient_S})));
  for (size_t i = 0; i < objective.num_sums(); ++i) EXPECT_DOUBLE_EQ(whole.sums[i], a.sums[i] + b.sums[i]);
  std::vector<double> maxima = NoMaxima(objective.num_maxima());
  KeepMaxima(a.maxima, maxima);
  KeepMaxima({}, maxima);  // of a micro-batch that no loss looks at
  KeepMaxima(b.maxima, maxima);
  EXPECT_EQ(maxima, whole.maxima);
}

TEST(RewardObjective, RewardThatIsNoNumber_ShowsInTheExtremes) {
  const RewardObjective objective({});
  std::vector<double> maxima = NoMaxima(objective.num_maxima());
  for (const float reward : {1.0F, std::nanf(""), 2.0F}) {
    KeepMaxima(objective.Evaluate(at::tensor({reward, 0.5F}, at::kFloat), {.starts = {0, 1, 2}}, 1).maxima, maxima);
  }
  for (const auto& [name, value] : objective.Extremes(maxima)) EXPECT_TRUE(std::isnan(value)) << name;
}

TEST(RewardObjective, HopelessPair_HasAFiniteLoss) {
  const RewardObjective objective({});
  const auto evaluation = objective.Evaluate(at::tensor({-1e4, 1e4}, at::kFloat), {.starts = {0, 1, 2}}, 1);
  EXPECT_NEAR(evaluation.loss, 2e4, 1);
  EXPECT_NEAR(evaluation.coefficient_S[0].item<double>(), -1, 1e-6);
}

}  // namespace
}  // namespace temper
