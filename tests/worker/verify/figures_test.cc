// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/figures.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace temper {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(CompareLogits, KnownDistributions_GiveTheirKl) {
  // (3/4, 1/4) against (1/2, 1/2): KL = 3/4·log(3/2) + 1/4·log(1/2). Logits are known up to a constant a row.
  const at::Tensor reference =
      at::tensor({std::log(3.0), 0.0, 0.0, 0.0}).view({2, 2}) + at::tensor({5.0, -7.0}).view({2, 1});
  const at::Tensor other = at::zeros({2, 2}, at::kDouble);
  const LogitFigures figures = CompareLogits(reference, other);
  const double kl = 0.75 * std::log(1.5) + 0.25 * std::log(0.5);
  EXPECT_EQ(figures.positions, 2);
  EXPECT_NEAR(figures.max_kl, kl, 1e-15);
  EXPECT_NEAR(figures.mean_kl(), kl / 2, 1e-15);
  EXPECT_EQ(figures.max_logit_error, 1.0);
}

TEST(CompareLogits, Kl_IsOfTheReferenceNotOfTheOther) {
  const at::Tensor one = at::tensor({std::log(9.0), 0.0}).view({1, 2});
  const at::Tensor even = at::tensor({1.0, 1.0}).view({1, 2});
  EXPECT_NEAR(CompareLogits(one, even).max_kl, 0.9 * std::log(1.8) + 0.1 * std::log(0.2), 1e-15);
  EXPECT_NEAR(CompareLogits(even, one).max_kl, 0.5 * std::log(0.5 / 0.9) + 0.5 * std::log(0.5 / 0.1), 1e-15);
}

TEST(CompareLogits, DifferenceInOneRowOfManyChunks_IsFound) {
  at::manual_seed(0);
  const at::Tensor reference = at::randn({300, 50});
  at::Tensor other = reference.clone();
  const LogitFigures same = CompareLogits(reference, other);
  EXPECT_EQ(same.positions, 300);
  EXPECT_EQ(same.same_top1, 300);
  EXPECT_EQ(same.max_kl, 0.0);
  other[299][reference[299].argmin().item<int64_t>()] += 20.0;
  const LogitFigures figures = CompareLogits(reference, other);
  EXPECT_EQ(figures.same_top1, 299);
  EXPECT_GT(figures.max_kl, 1.0);
  EXPECT_NEAR(figures.mean_kl(), figures.max_kl / 300, 1e-15);
  EXPECT_NEAR(figures.max_logit_error, 20.0 / reference[299].norm().item<double>(), 1e-6);
}

TEST(CompareLogits, DifferenceFarBelowFp32_IsMeasured) {
  // KL of nearly equal distributions is quadratic in the difference: fp32 would see nothing but its own rounding.
  at::Tensor reference = at::zeros({1, 2}, at::kDouble), other = reference.clone();
  other[0][0] = 1e-4;
  EXPECT_NEAR(CompareLogits(reference, other).max_kl, 1e-8 / 8, 1e-13);
}

TEST(CompareLogits, NanInAnyRow_IsNotLost) {
  at::Tensor reference = at::ones({130, 3}), other = reference.clone();
  other[1][0] = kNan;
  const LogitFigures figures = CompareLogits(reference, other);
  EXPECT_TRUE(std::isnan(figures.max_kl));
  EXPECT_TRUE(std::isnan(figures.mean_kl()));
  EXPECT_TRUE(std::isnan(figures.max_logit_error));
}

TEST(CompareLogits, OtherShape_Throws) {
  EXPECT_THROW(CompareLogits(at::zeros({1, 3}), at::zeros({2, 3})), c10::Error);
}

TEST(Merged, CountsBothAndKeepsTheWorst) {
  const LogitFigures merged =
      Merged({.positions = 1, .kl_sum = 2, .max_kl = 2, .max_logit_error = 0.1, .same_top1 = 1},
             {.positions = 3, .kl_sum = 4, .max_kl = 1, .max_logit_error = 0.3, .same_top1 = 2});
  EXPECT_EQ(merged.positions, 4);
  EXPECT_EQ(merged.mean_kl(), 1.5);
  EXPECT_EQ(merged.max_kl, 2);
  EXPECT_EQ(merged.max_logit_error, 0.3);
  EXPECT_EQ(merged.top1_agreement(), 0.75);
}

TEST(RelativeError, IsRelativeToTheReferenceOrTheFloor) {
  const at::Tensor reference = at::tensor({3.0, 4.0}), other = at::tensor({3.0, 4.5});
  EXPECT_DOUBLE_EQ(RelativeError(reference, other), 0.1);
  EXPECT_DOUBLE_EQ(RelativeError(reference, other, 50.0), 0.01);
  EXPECT_DOUBLE_EQ(RelativeError(reference, other, 1.0), 0.1);
  EXPECT_EQ(RelativeError(at::zeros({2}), at::zeros({2})), 0.0);
  EXPECT_TRUE(std::isinf(RelativeError(at::zeros({2}), at::ones({2}))));
  EXPECT_TRUE(std::isnan(RelativeError(reference, at::tensor({kNan, 4.0}))));
}

}  // namespace
}  // namespace temper
