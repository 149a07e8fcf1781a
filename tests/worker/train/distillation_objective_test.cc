// SPDX-License-Identifier: Apache-2.0
// Values are compared with a plain loop of transformers in tests/parity.
#include "worker/train/distillation_objective.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/peak_memory.h"
#include "worker/model/gradient.h"
#include "worker/model/transformer.h"
#include "worker/train/step_metrics.h"
#include "worker/train/train_step.h"

namespace temper {
namespace {

using ops::DivergenceKind;

ModelConfig ConfigOf(int64_t hidden_size, int64_t vocab_size) {
  ModelConfig config;
  config.hidden_size = hidden_size;
  config.num_layers = 2;
  config.vocab_size = vocab_size;
  config.attention = {.num_heads = 2, .num_kv_heads = 1, .head_dim = hidden_size / 2, .scale = 0.35};
  config.feed_forward.intermediate_size = 24;
  return config;
}

void Randomise(Transformer& model, uint64_t seed) {
  at::manual_seed(seed);
  for (const WeightView& view : model.views()) StoreMaster(view, at::randn(view.shape()) * 0.3);
}

// Another size, and a vocabulary with more padding.
std::unique_ptr<Transformer> Teacher() {
  auto model = std::make_unique<Transformer>(ConfigOf(24, 70), TransformerOptions{.lora = LoraConfig{}});
  Randomise(*model, 7);
  return model;
}

std::unique_ptr<Transformer> Student() {
  auto model = std::make_unique<Transformer>(ConfigOf(16, 64), TransformerOptions{});
  Randomise(*model, 3);
  return model;
}

// Two documents, of which five tokens are scored.
MicroBatch TwoDocuments() {
  return {.tokens_T = {1, 2, 3, 4, 5, 6, 7},
          .targets_T = {2, 3, 4, 0, 6, 7, 0},
          .positions_T = {0, 1, 2, 3, 0, 1, 2},
          .loss_mask_T = {1, 1, 1, 0, 1, 1, 0},
          .reference_S = {},
          .document_starts = {0, 4, 7},
          .capacity = 7};
}

MicroBatch Part(const MicroBatch& batch, int64_t begin, int64_t end) {
  const auto cut = [&](const auto& values) {
    return std::decay_t<decltype(values)>(values.begin() + begin, values.begin() + end);
  };
  return {.tokens_T = cut(batch.tokens_T),
          .targets_T = cut(batch.targets_T),
          .positions_T = cut(batch.positions_T),
          .loss_mask_T = cut(batch.loss_mask_T),
          .reference_S = {},
          .document_starts = {0, end - begin},
          .capacity = end - begin};
}

struct Case {
  std::string name;
  DistillationOptions options;
};

class DistillationObjectiveTest : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Transformer> teacher_ = Teacher();
  DistillationObjective objective_{GetParam().options, teacher_.get()};
};

INSTANTIATE_TEST_SUITE_P(
    Divergences, DistillationObjectiveTest,
    testing::Values(Case{"ForwardKl", {.teacher = "", .divergence = {.temperature = 2}}},
                    Case{"Mixed", {.teacher = "", .divergence = {}, .sft_weight = 0.3}},
                    Case{"ReverseKl", {.teacher = "", .divergence = {.kind = DivergenceKind::kReverseKl}}},
                    Case{"Jsd", {.teacher = "", .divergence = {.kind = DivergenceKind::kJsd, .teacher_weight = 0.2}}}),
    [](const auto& each) { return each.param.name; });

TEST_P(DistillationObjectiveTest, Gradient_IsTheLossesDerivative) {
  const auto student = Student();
  const double loss = ForwardBackward(*student, TwoDocuments(), objective_, 5).loss;
  EXPECT_NEAR(Evaluate(*student, TwoDocuments(), objective_, 5).loss, loss, 1e-6);
  constexpr float kStep = 1e-2;
  for (Parameter* parameter : student->parameters()) {
    const at::NoGradGuard no_grad;
    const at::Tensor weight = parameter->weight.view({-1});
    const int64_t place = parameter->gradient.abs().argmax().item<int64_t>();
    const auto gradient = parameter->gradient.flatten()[place].item<double>();
    const auto loss_at = [&](float step) {
      weight[place] += step;
      const double value = Evaluate(*student, TwoDocuments(), objective_, 5).loss;
      weight[place] -= step;
      return value;
    };
    EXPECT_NEAR(gradient, (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep), 1e-2 * std::max(0.1, std::abs(gradient)))
        << parameter->name;
  }
  for (const Parameter* parameter : teacher_->parameters()) EXPECT_FALSE(parameter->gradient.defined());
}

TEST_P(DistillationObjectiveTest, MicroBatches_AddUpToOneStep) {
  const auto whole = Student(), parts = Student();
  const MicroBatch batch = TwoDocuments();
  const StepShare share = ForwardBackward(*whole, batch, objective_, 5);
  StepShare sum = ForwardBackward(*parts, Part(batch, 0, 4), objective_, 5);
  sum += ForwardBackward(*parts, Part(batch, 4, 7), objective_, 5);
  EXPECT_NEAR(sum.loss, share.loss, 1e-6);
  const auto expected = objective_.Figures(share.sums), figures = objective_.Figures(sum.sums);
  ASSERT_EQ(figures.size(), 4u);
  for (const auto& [name, figure] : expected) EXPECT_NEAR(figures.at(name), figure, 1e-5) << name;
  for (size_t i = 0; i < whole->parameters().size(); ++i) {
    EXPECT_TRUE(at::allclose(parts->parameters()[i]->gradient, whole->parameters()[i]->gradient, 1e-4, 1e-6));
  }
}

TEST_P(DistillationObjectiveTest, Loss_IsTheFiguresMixed) {
  const StepShare share = Evaluate(*Student(), TwoDocuments(), objective_, 5);
  const auto figures = objective_.Figures(share.sums);
  const double weight = GetParam().options.sft_weight;
  EXPECT_NEAR(share.loss,
              (1 - weight) * figures.at("distillation/divergence") + weight * figures.at("distillation/cross_entropy"),
              1e-12);
  const double alone = Evaluate(*teacher_, TwoDocuments(), SupervisedObjective(), 5).loss;
  // Of the tokens that both have.
  EXPECT_LT(figures.at("distillation/teacher_cross_entropy"), alone);
  EXPECT_NEAR(figures.at("distillation/teacher_cross_entropy"), alone, 0.5);
}

TEST(DistillationObjectiveTest, NothingButTheData_IsSupervised) {
  const auto teacher = Teacher();
  const auto student = Student(), alone = Student();
  const DistillationObjective objective({.teacher = "", .divergence = {}, .sft_weight = 1}, teacher.get());
  EXPECT_NEAR(ForwardBackward(*student, TwoDocuments(), objective, 5).loss,
              ForwardBackward(*alone, TwoDocuments(), SupervisedObjective(), 5).loss, 1e-6);
  for (size_t i = 0; i < student->parameters().size(); ++i) {
    EXPECT_TRUE(at::allclose(student->parameters()[i]->gradient, alone->parameters()[i]->gradient, 1e-4, 1e-6));
  }
}

TEST(DistillationObjectiveTest, TheModelAsItsOwnTeacher_HasNothingToLearn) {
  const auto student = Student(), teacher = Student();
  const DistillationObjective objective({}, teacher.get());
  const StepShare share = ForwardBackward(*student, TwoDocuments(), objective, 5);
  EXPECT_NEAR(share.loss, 0, 1e-6);
  EXPECT_EQ(objective.Figures(share.sums).at("distillation/agreement"), 1);
  EXPECT_LE(GlobalGradientNorm(student->parameters()), 1e-5);
}

TEST(DistillationObjectiveTest, WhatWasStored_IsLearnedWithoutATeacher) {
  MicroBatch batch = TwoDocuments();
  batch.teacher = {
      .starts = {0, 1, 3, 4, 5, 6}, .tokens = {9, 8, 7, 6, 5, 4}, .logprobs = {-0.1, -0.7, -1, -2, -3, -4}};
  const auto student = Student();
  const DistillationObjective objective({}, nullptr);
  const StepShare share = ForwardBackward(*student, batch, objective, 5);
  const auto figures = objective.Figures(share.sums);
  EXPECT_NEAR(share.loss, figures.at("distillation/divergence"), 1e-12);
  EXPECT_FALSE(figures.contains("distillation/teacher_cross_entropy"));
  EXPECT_NEAR(Evaluate(*student, batch, objective, 5).loss, share.loss, 1e-6);
  EXPECT_GT(GlobalGradientNorm(student->parameters()), 0);
  // Each row with its own.
  MicroBatch first = Part(batch, 0, 4), second = Part(batch, 4, 7);
  first.teacher.Append(batch.teacher, 0, 3);
  second.teacher.Append(batch.teacher, 3, 5);
  const double sum = Evaluate(*student, first, objective, 5).loss + Evaluate(*student, second, objective, 5).loss;
  EXPECT_NEAR(sum, share.loss, 1e-6);
}

TEST(DistillationObjectiveTest, Logits_NeverExistForAllRows) {
  constexpr int64_t kTokens = 2048, kVocabulary = 40'000;
  Transformer student(ConfigOf(16, kVocabulary), {});
  Transformer teacher(ConfigOf(24, kVocabulary), {.lora = LoraConfig{}});
  Randomise(student, 3);
  Randomise(teacher, 7);
  MicroBatch batch{.loss_mask_T = std::vector<uint8_t>(kTokens, 1), .document_starts = {0}, .capacity = kTokens};
  for (int64_t t = 0; t < kTokens; ++t) {
    batch.tokens_T.push_back(t * 31 % kVocabulary);
    batch.targets_T.push_back(t * 37 % kVocabulary);
    batch.positions_T.push_back(t % 64);
    if (t % 64 == 63) batch.document_starts.push_back(t + 1);
  }
  const DistillationObjective objective({.teacher = "", .divergence = {.kind = DivergenceKind::kJsd}}, &teacher);
  const auto step = [&] { ForwardBackward(student, batch, objective, kTokens); };
  step();  // gradients have their memory
  EXPECT_LT(PeakBytesOf(step), kTokens * kVocabulary * static_cast<int64_t>(sizeof(float)));
}

TEST(DistillationObjectiveTest, Work_CountsTheTeachersForwardPass) {
  const auto teacher = Teacher(), student = Student();
  const FlopRates rates = student->flop_rates(), of_teacher = teacher->flop_rates();
  const DistillationObjective objective({}, teacher.get());
  const StepWork alone = CountWork(rates, {TwoDocuments()}, SupervisedObjective());
  const StepWork work = CountWork(rates, {TwoDocuments()}, objective);
  EXPECT_DOUBLE_EQ(ModelFlops(rates, work) - ModelFlops(rates, alone),
                   7 * of_teacher.forward_per_token + 5 * of_teacher.forward_per_scored_token +
                       (10 + 6) * of_teacher.attention[0].per_pair / 3);
}

}  // namespace
}  // namespace temper
