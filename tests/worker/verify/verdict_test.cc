// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/verdict.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <sstream>

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

LogitFigures Figures(double max_kl, double max_logit_error = 0, int64_t positions = 100, int64_t same_top1 = 100) {
  return {.positions = positions,
          .kl_sum = max_kl * static_cast<double>(positions) / 2,
          .max_kl = max_kl,
          .max_logit_error = max_logit_error,
          .same_top1 = same_top1};
}

Verdict Fp32(const LogitFigures& figures) {
  return {.dtype = "fp32", .logits = {{.ids = "random", .layout = "packed", .native = figures}}};
}

Verdict Bf16(const LogitFigures& native, const LogitFigures& hf) {
  return {.dtype = "bf16", .logits = {{.ids = "random", .layout = "packed", .native = native, .hf_bf16 = hf}}};
}

TEST(Judge, Fp32_EachBoundIsAskedFor) {
  EXPECT_THAT(Judge(Fp32(Figures(1e-8, 2e-5))), IsEmpty());
  EXPECT_THAT(Judge(Fp32(Figures(1.01e-8, 2e-5))), ElementsAre(HasSubstr("largest KL is 1.01e-08 (at most 1e-08)")));
  EXPECT_THAT(Judge(Fp32(Figures(1e-8, 2.1e-5))), ElementsAre(HasSubstr("logits is 2.10e-05")));
  EXPECT_THAT(Judge(Fp32(Figures(0, 0, 100, 99))), ElementsAre(HasSubstr("differs at 1 of 100 positions")));
  EXPECT_EQ(Judge(Fp32(Figures(kNan, kNan))).size(), 2);
}

TEST(Judge, Fp32_ExpertsMayBeFurtherOff) {
  Verdict verdict = Fp32(Figures(1e-7, 2e-5));
  verdict.experts = true;
  EXPECT_THAT(Judge(verdict), IsEmpty());
  verdict.logits[0].native.max_kl = 1.01e-7;
  EXPECT_THAT(Judge(verdict), ElementsAre(HasSubstr("largest KL is 1.01e-07 (at most 1e-07)")));
  verdict.logits[0].native = Figures(1e-7, 2.1e-5);
  EXPECT_THAT(Judge(verdict), ElementsAre(HasSubstr("logits is 2.10e-05")));
}

TEST(Judge, Fp32_AnyCheckFails) {
  Verdict verdict = Fp32(Figures(0));
  verdict.logits.push_back({.ids = "text", .layout = "padded", .native = Figures(1)});
  EXPECT_THAT(Judge(verdict), ElementsAre(HasSubstr("text ids, padded")));
}

TEST(Judge, Bf16_IsRelativeToTransformersOwn) {
  const LogitFigures hf = Figures(1e-3, 0, 4096);
  EXPECT_THAT(Judge(Bf16(Figures(1.2e-3, 1, 4096, 0), hf)), IsEmpty());
  EXPECT_THAT(Judge(Bf16(Figures(1.3e-3, 0, 4096), hf)), ElementsAre(HasSubstr("mean KL is 1.30 times")));
  LogitFigures peaked = Figures(1e-3, 0, 4096);
  peaked.max_kl = 3.1e-3;
  EXPECT_THAT(Judge(Bf16(peaked, hf)), ElementsAre(HasSubstr("largest KL is 3.10 times")));
  EXPECT_EQ(Judge(Bf16(Figures(kNan, 0, 4096), hf)).size(), 2);
}

TEST(Judge, Bf16_AllDocumentsCountTogether) {
  // Too few positions, and one of them far off: the mean of all is what is asked for.
  Verdict verdict = Bf16(Figures(1e-3, 0, 4000), Figures(1e-3, 0, 4000));
  EXPECT_THAT(Judge(verdict), ElementsAre(HasSubstr("4000 positions (4096 are needed)")));
  verdict.logits.push_back(
      {.ids = "text", .layout = "packed", .native = Figures(2e-3, 0, 100), .hf_bf16 = Figures(1e-3, 0, 100)});
  EXPECT_THAT(Judge(verdict), IsEmpty());
}

TEST(Judge, Gradients_EachTensorIsJudged) {
  Verdict verdict = Fp32(Figures(0));
  verdict.gradients = GradientReport{.errors = {{"b", kNan}, {"a", 1.1e-4}, {"c", 1e-4}}};
  EXPECT_THAT(Judge(verdict), ElementsAre(HasSubstr("gradient of b"), HasSubstr("gradient of a is off by 1.10e-04")));
  verdict.gradients->errors.assign(8, {"x", 1.0});
  EXPECT_EQ(Judge(verdict).size(), 6);
  EXPECT_EQ(Judge(verdict).back(), "so are those of 3 other tensors");
  verdict.gradients = GradientReport{.unmatched = {"d"}};
  EXPECT_THAT(Judge(verdict), ElementsAre(HasSubstr("only one side has gradients of d")));
}

TEST(Judge, DepartingModule_FailsNobody) {
  Verdict verdict = Fp32(Figures(0));
  verdict.layers = LayerReport{.departure = Departure{"x", "its output", 1}};
  EXPECT_THAT(Judge(verdict), IsEmpty());
}

TEST(CompareGradientSets, SmallGradientsAreMeasuredByTheWhole) {
  // ‖all‖ = 5: errors below 5e-5 · 1e-4 in absolute terms pass however small the gradient is.
  const std::map<std::string, at::Tensor> expected = {
      {"large", at::tensor({3.0, 4.0})}, {"tiny", at::tensor({1e-9})}, {"only_hf", at::zeros({1})}};
  const std::map<std::string, at::Tensor> actual = {
      {"large", at::tensor({3.0, 4.0005})}, {"tiny", at::tensor({2e-9})}, {"only_ours", at::zeros({1})}};
  const GradientReport report = CompareGradientSets(expected, actual);
  ASSERT_EQ(report.errors.size(), 2);
  EXPECT_EQ(report.errors[0].tensor, "large");
  EXPECT_NEAR(report.errors[0].error, 1e-4, 1e-9);
  EXPECT_NEAR(report.errors[1].error, 1e-9 / 5e-5, 1e-9);
  EXPECT_THAT(report.unmatched, ElementsAre("only_hf", "only_ours"));
}

TEST(CompareGradientSets, NanIsTheWorst) {
  const GradientReport report = CompareGradientSets({{"a", at::ones({1})}, {"b", at::ones({1})}},
                                                    {{"a", at::full({1}, 9.0)}, {"b", at::full({1}, kNan)}});
  EXPECT_EQ(report.errors[0].tensor, "b");
}

TEST(Verdict, JsonAndTable_SayTheSame) {
  Verdict verdict = Fp32(Figures(3e-7, 1e-6));
  verdict.model = "/models/tiny";
  verdict.not_exercised = {"the window of 4096 tokens"};
  verdict.layers = LayerReport{.departure = Departure{"model.layers.1.mlp", "the activation", 0.5}};
  verdict.gradients = GradientReport{.errors = {{"model.norm.weight", 2e-6}}};
  verdict.reasons = Judge(verdict);
  const nlohmann::ordered_json json = ToJson(verdict);
  EXPECT_FALSE(json["passed"].get<bool>());
  EXPECT_EQ(json["logits"][0]["max_kl"], 3e-7);
  EXPECT_EQ(json["logits"][0]["top1_agreement"], 1.0);
  EXPECT_EQ(json["layers"]["first_departure"]["module"], "model.layers.1.mlp");
  EXPECT_EQ(json["gradients"]["max_error"], 2e-6);
  std::ostringstream table;
  PrintTable(verdict, table);
  for (const char* part : {"/models/tiny", "3.00e-07", "model.layers.1.mlp, by 5.00e-01: the activation",
                           "1 tensors, largest error 2.00e-06 (model.norm.weight)",
                           "not exercised: the window of 4096 tokens", "FAILED"}) {
    EXPECT_THAT(table.str(), HasSubstr(part));
  }
}

}  // namespace
}  // namespace temper
