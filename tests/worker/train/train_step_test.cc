// SPDX-License-Identifier: Apache-2.0
// Values are compared with transformers in tests/parity.
#include "worker/train/train_step.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "tests/peak_memory.h"
#include "worker/model/gradient.h"
#include "worker/model/transformer.h"
#include "worker/train/adamw.h"
#include "worker/train/preference_objective.h"

namespace temper {
namespace {

ModelConfig SmallConfig() {
  ModelConfig config;
  config.hidden_size = 16;
  config.num_layers = 2;
  config.vocab_size = 64;
  config.attention = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 8, .scale = 0.35};
  config.feed_forward.intermediate_size = 24;
  return config;
}

void Randomise(Transformer& model) {
  at::manual_seed(3);
  for (const WeightView& view : model.views()) StoreMaster(view, at::randn(view.shape()) * 0.3);
}

MicroBatch Document(const std::vector<int64_t>& tokens, std::vector<uint8_t> mask) {
  MicroBatch batch;
  batch.tokens_T = tokens;
  for (size_t i = 0; i < tokens.size(); ++i) {
    batch.targets_T.push_back(i + 1 < tokens.size() ? tokens[i + 1] : 0);
    batch.positions_T.push_back(static_cast<int64_t>(i));
  }
  batch.loss_mask_T = std::move(mask);
  batch.document_starts = {0, batch.num_tokens()};
  batch.capacity = batch.num_tokens();
  return batch;
}

// SFT that hides what it knows: the head takes its two-pass form.
class TwoPassObjective : public SupervisedObjective {
 public:
  std::optional<at::Tensor> KnownCoefficients(int64_t, double) const override { return std::nullopt; }
  Evaluation Evaluate(const at::Tensor& logprobs_S, const ScoredDocuments&, double normalizer) const override {
    return {-logprobs_S.sum(at::kDouble).item<double>() / normalizer, at::full_like(logprobs_S, -1.0 / normalizer), {}};
  }
};

TEST(ForwardBackward, FusedAndTwoPassForms_AreEqual) {
  Transformer fused(SmallConfig(), {}), two_pass(SmallConfig(), {});
  Randomise(fused);
  Randomise(two_pass);
  const MicroBatch batch = Document({1, 2, 3, 4}, {1, 0, 1, 0});
  EXPECT_EQ(ForwardBackward(fused, batch, SupervisedObjective(), 2).loss,
            ForwardBackward(two_pass, batch, TwoPassObjective(), 2).loss);
  for (size_t i = 0; i < fused.parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(fused.parameters()[i]->gradient, two_pass.parameters()[i]->gradient));
  }
}

TEST(ForwardBackward, NothingScored_IsZeroAndLeavesNoGradient) {
  Transformer model(SmallConfig(), {});
  Randomise(model);
  EXPECT_EQ(ForwardBackward(model, Document({1, 2, 3}, {0, 0, 0}), SupervisedObjective(), 1).loss, 0);
  EXPECT_EQ(GlobalGradientNorm(model.parameters()), 0);
}

TEST(ForwardBackward, MicroBatches_AddUpToOneStep) {
  Transformer model(SmallConfig(), {});
  Randomise(model);
  const MicroBatch batch = Document({1, 2, 3, 4}, {1, 1, 1, 0});
  const double loss = ForwardBackward(model, batch, SupervisedObjective(), 3).loss;
  const at::Tensor gradient = model.parameters()[1]->gradient.clone();
  ZeroGradients(model.parameters());
  const double half = ForwardBackward(model, batch, SupervisedObjective(), 6).loss;
  EXPECT_NEAR(half * 2, loss, 1e-12);
  ForwardBackward(model, batch, SupervisedObjective(), 6);
  EXPECT_TRUE(at::allclose(model.parameters()[1]->gradient, gradient, 1e-5, 1e-9));
}

// Two answers to a prompt of two tokens.
MicroBatch PairOfAnswers() {
  MicroBatch batch = Document({1, 2, 3, 4, 5, 1, 2, 6, 7}, {0, 1, 1, 1, 0, 0, 1, 1, 0});
  batch.document_starts = {0, 5, 9};
  batch.positions_T = {0, 1, 2, 3, 4, 0, 1, 2, 3};
  batch.targets_T[4] = 0;
  return batch;
}

std::unique_ptr<Transformer> Adapted() {
  const LoraConfig lora = {.rank = 2, .alpha = 4, .sites = {{"layers.0.attn.q"}, {"layers.0.mlp.down"}}};
  auto model = std::make_unique<Transformer>(SmallConfig(), TransformerOptions{.lora = lora});
  Randomise(*model);
  const at::NoGradGuard no_grad;
  for (LoraAdapter* adapter : model->adapters()) adapter->b_OR.weight.normal_();
  return model;
}

TEST(ForwardBackward, NewAdapters_AreTheirOwnReference) {
  const auto model = Adapted();
  for (LoraAdapter* adapter : model->adapters()) adapter->b_OR.weight.detach().zero_();
  const PreferenceObjective dpo({.beta = 0.5});
  const StepShare share = ForwardBackward(*model, PairOfAnswers(), dpo, 1);
  EXPECT_NEAR(share.loss, std::log(2.0), 1e-6);
  EXPECT_EQ(dpo.Figures(share.sums).at("kl"), 0);
  for (const LoraAdapter* adapter : model->adapters()) EXPECT_TRUE(adapter->enabled);
}

TEST(ForwardBackward, StoredReference_IsWhatAdaptersLeftAwayGive) {
  const auto model = Adapted();
  MicroBatch batch = PairOfAnswers();
  const PreferenceOptions options = {.loss = PreferenceLoss::kIpo, .beta = 0.5};
  const StepShare without = ForwardBackward(*model, batch, PreferenceObjective(options), 1);
  Transformer base(SmallConfig(), {});
  Randomise(base);
  const at::Tensor logprobs_S = ScoredLogprobs(base, batch);
  batch.reference_S.assign(logprobs_S.const_data_ptr<float>(), logprobs_S.const_data_ptr<float>() + logprobs_S.numel());
  const StepShare stored = ForwardBackward(*model, batch, PreferenceObjective(options, Reference::kStored), 1);
  EXPECT_EQ(stored.loss, without.loss);
  EXPECT_EQ(stored.sums, without.sums);
  EXPECT_NE(PreferenceObjective(options).Figures(stored.sums).at("kl"), 0);
}

TEST(ForwardBackward, GradientOfAPair_IsTheLossesDerivative) {
  for (const PreferenceLoss loss : {PreferenceLoss::kSigmoid, PreferenceLoss::kIpo, PreferenceLoss::kOrpo}) {
    const auto model = Adapted();
    const PreferenceObjective objective({.loss = loss, .beta = 0.5});
    ForwardBackward(*model, PairOfAnswers(), objective, 1);
    constexpr float kStep = 1e-2;
    for (LoraAdapter* adapter : model->adapters()) {
      const at::NoGradGuard no_grad;
      const at::Tensor weight = adapter->b_OR.weight.view({-1});
      const auto gradient = adapter->b_OR.gradient.flatten()[0].item<double>();
      const auto loss_at = [&](float step) {
        weight[0] += step;
        const double value = Evaluate(*model, PairOfAnswers(), objective, 1).loss;
        weight[0] -= step;
        return value;
      };
      EXPECT_NEAR(gradient, (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep), 2e-3 * std::max(1.0, std::abs(gradient)));
    }
  }
}

// Of documents of 64 tokens. Every n-th is scored.
MicroBatch Documents(int64_t tokens, int64_t vocab_size, int64_t n) {
  std::vector<int64_t> ids;
  std::vector<uint8_t> mask;
  for (int64_t i = 0; i < tokens; ++i) {
    ids.push_back(i * 31 % vocab_size);
    mask.push_back(i % n == 0);
  }
  MicroBatch batch = Document(ids, mask);
  batch.document_starts = {0};
  for (int64_t i = 0; i < tokens; ++i) batch.positions_T[i] = i % 64;
  while (batch.document_starts.back() < tokens) batch.document_starts.push_back(batch.document_starts.back() + 64);
  return batch;
}

TEST(ForwardBackward, Logits_NeverExistForAllRows) {
  constexpr int64_t kTokens = 4096, kVocabulary = 40'000;
  constexpr int64_t kAllLogits = kTokens * kVocabulary * sizeof(float);
  ModelConfig config = SmallConfig();
  config.vocab_size = kVocabulary;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Transformer model(config, {.dtype = dtype});
    Randomise(model);
    const auto step = [&](int64_t n) {
      ForwardBackward(model, Documents(kTokens, kVocabulary, n), SupervisedObjective(), 1);
    };
    step(kTokens);                                                       // gradients have their memory
    EXPECT_LT(PeakBytesOf([&] { step(1); }), kAllLogits / 2) << dtype;   // in chunks
    EXPECT_LT(PeakBytesOf([&] { step(64); }), kAllLogits / 8) << dtype;  // of the rows that are scored
  }
}

TEST(AdamW, Bf16Weights_KeepUpdatesTooSmallForBf16) {
  Transformer model(SmallConfig(), {.dtype = at::kBFloat16});
  Randomise(model);
  const WeightView& view = model.views()[1];
  const at::Tensor before = LoadMaster(view);
  GradientBuffer(*view.parameter).fill_(1.0);
  AdamW optimizer(model.parameters(), {});
  for (int step = 0; step < 3; ++step) optimizer.Step(1e-6, 1.0);
  const at::Tensor moved = before - LoadMaster(view);
  EXPECT_NEAR(moved.mean().item<double>(), 3e-6, 1e-7);
  // What the model computes with is the master, rounded.
  EXPECT_TRUE(at::equal(view.parameter->weight.narrow(0, view.row, view.rows), LoadMaster(view).to(at::kBFloat16)));
}

TEST(ClipScale, NormAboveTheLimit_IsScaledDownToIt) {
  EXPECT_DOUBLE_EQ(ClipScale(4.0, 1.0), 0.25);
  EXPECT_DOUBLE_EQ(ClipScale(0.5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(ClipScale(4.0, 0.0), 1.0);
}

}  // namespace
}  // namespace temper
