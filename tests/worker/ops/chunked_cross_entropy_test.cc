// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/chunked_cross_entropy.h"

#include "tests/worker/ops/reference_check.h"
#include "tests/worker/ops/repeatable.h"
#include "worker/ops/cpu/operators.h"

namespace temper::ops {
namespace {

// More rows than one chunk has, and a vocabulary with padding.
constexpr int64_t kRows = 300, kHidden = 24, kVocab = 90, kPadded = 128;

struct Fixture {
  at::Tensor hidden_SD = at::randn({kRows, kHidden});
  at::Tensor weight_VD = at::randn({kPadded, kHidden});
  at::Tensor targets_S = at::randint(kVocab, {kRows}, at::kLong);
  at::Tensor coefficient_S = at::randn({kRows});
};

at::Tensor ReferenceLogprobs(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, const at::Tensor& targets_S,
                             const LogitConfig& config = {}) {
  at::Tensor logits_SV = at::matmul(hidden_SD, weight_VD.narrow(0, 0, kVocab).t()) * config.scale;
  if (config.softcap > 0) logits_SV = config.softcap * (logits_SV / config.softcap).tanh();
  return logits_SV.log_softmax(-1).gather(1, targets_S.unsqueeze(1)).squeeze(1);
}

TEST(ChunkedCrossEntropy, LogprobsAndGradients_EqualReference) {
  for (const auto& [dtype, bound] : {std::pair{at::kFloat, 1e-6}, std::pair{at::kBFloat16, 2e-2}}) {
    at::manual_seed(1);
    const Fixture f;
    const at::Tensor hidden_SD = f.hidden_SD.to(dtype), weight_VD = f.weight_VD.to(dtype);
    const at::Tensor hidden64 = hidden_SD.to(at::kDouble).requires_grad_();
    const at::Tensor weight64 = weight_VD.to(at::kDouble).requires_grad_();
    const at::Tensor logprobs64 = ReferenceLogprobs(hidden64, weight64, f.targets_S);
    const auto grads = torch::autograd::grad({logprobs64}, {hidden64, weight64}, {f.coefficient_S.to(at::kDouble)});

    at::Tensor grad_weight_VD = at::zeros({kPadded, kHidden});
    const LogprobGradients out =
        TokenLogprobsWithGradients(hidden_SD, weight_VD, kVocab, f.targets_S, f.coefficient_S, grad_weight_VD);
    EXPECT_LE(RelativeError(out.logprobs_S, logprobs64), bound);
    EXPECT_LE(RelativeError(out.grad_hidden_SD, grads[0]), bound);
    EXPECT_LE(RelativeError(grad_weight_VD, grads[1]), bound);
    EXPECT_TRUE(at::equal(out.logprobs_S, TokenLogprobs(hidden_SD, weight_VD, kVocab, f.targets_S)));
  }
}

TEST(ChunkedCrossEntropy, ScaleAndSoftcap_EqualReference) {
  for (const LogitConfig& config : {LogitConfig{.scale = 0.125}, LogitConfig{.scale = 0.5, .softcap = 3.0}}) {
    at::manual_seed(3);
    const Fixture f;
    const at::Tensor hidden64 = f.hidden_SD.to(at::kDouble).requires_grad_();
    const at::Tensor weight64 = f.weight_VD.to(at::kDouble).requires_grad_();
    const at::Tensor logprobs64 = ReferenceLogprobs(hidden64, weight64, f.targets_S, config);
    const auto grads = torch::autograd::grad({logprobs64}, {hidden64, weight64}, {f.coefficient_S.to(at::kDouble)});

    at::Tensor grad_weight_VD = at::zeros({kPadded, kHidden});
    const LogprobGradients out = TokenLogprobsWithGradients(f.hidden_SD, f.weight_VD, kVocab, f.targets_S,
                                                            f.coefficient_S, grad_weight_VD, {}, config);
    EXPECT_LE(RelativeError(out.logprobs_S, logprobs64), 1e-6);
    EXPECT_LE(RelativeError(out.grad_hidden_SD, grads[0]), 2e-6);
    EXPECT_LE(RelativeError(grad_weight_VD, grads[1]), 2e-6);
    EXPECT_TRUE(at::equal(out.logprobs_S, TokenLogprobs(f.hidden_SD, f.weight_VD, kVocab, f.targets_S, config)));
    const at::Tensor logits_SV = Logits(f.hidden_SD, f.weight_VD, kVocab, config);
    EXPECT_EQ(logits_SV.size(1), kVocab);
    EXPECT_LE(RelativeError(logits_SV.log_softmax(-1).gather(1, f.targets_S.unsqueeze(1)).squeeze(1), logprobs64),
              1e-6);
  }
}

TEST(ChunkedCrossEntropy, Penalty_EqualsReference) {
  at::manual_seed(2);
  const Fixture f;
  const DistributionPenalty penalty = {.uniform = 0.3, .log_normalizer = 0.05};
  const at::Tensor hidden64 = f.hidden_SD.to(at::kDouble).requires_grad_();
  const at::Tensor weight64 = f.weight_VD.to(at::kDouble).requires_grad_();
  const at::Tensor logits64 = at::matmul(hidden64, weight64.narrow(0, 0, kVocab).t());
  const at::Tensor penalty64 =
      0.3 * -logits64.log_softmax(-1).mean(-1).sum() + 0.05 * logits64.logsumexp(-1).square().sum();
  const at::Tensor loss64 = penalty64 + (ReferenceLogprobs(hidden64, weight64, f.targets_S) * f.coefficient_S).sum();
  const auto grads = torch::autograd::grad({loss64}, {hidden64, weight64});

  at::Tensor grad_weight_VD = at::zeros({kPadded, kHidden});
  const LogprobGradients out = TokenLogprobsWithGradients(f.hidden_SD, f.weight_VD, kVocab, f.targets_S,
                                                          f.coefficient_S, grad_weight_VD, penalty);
  EXPECT_NEAR(out.penalty, penalty64.item<double>(), 1e-5 * penalty64.item<double>());
  EXPECT_LE(RelativeError(out.grad_hidden_SD, grads[0]), 1e-6);
  EXPECT_LE(RelativeError(grad_weight_VD, grads[1]), 1e-6);
  EXPECT_EQ(grad_weight_VD.narrow(0, kVocab, kPadded - kVocab).abs().max().item<float>(), 0);
}

TEST(ChunkedCrossEntropy, LowRankTerm_IsMoreColumnsOfBothFactors) {
  at::manual_seed(4);
  constexpr int64_t kRank = 3;
  const Fixture f;
  const LowRankTerm term = {at::randn({kRows, kRank}), at::randn({kPadded, kRank})};
  const LogitConfig config = {.scale = 0.5, .softcap = 3.0};
  const at::Tensor wide_SD = at::cat({f.hidden_SD, term.inner_SR}, 1);
  const at::Tensor wide_VD = at::cat({f.weight_VD, term.outer_VR}, 1);
  at::Tensor grad_VD = at::zeros({kPadded, kHidden}), grad_wide_VD = at::zeros({kPadded, kHidden + kRank});
  const LogprobGradients expected =
      TokenLogprobsWithGradients(wide_SD, wide_VD, kVocab, f.targets_S, f.coefficient_S, grad_wide_VD, {}, config);
  const LogprobGradients out = TokenLogprobsWithGradients(f.hidden_SD, f.weight_VD, kVocab, f.targets_S,
                                                          f.coefficient_S, grad_VD, {}, config, term);
  EXPECT_LE(RelativeError(out.logprobs_S, expected.logprobs_S), 1e-6);
  EXPECT_LE(RelativeError(at::cat({out.grad_hidden_SD, out.grad_inner_SR}, 1), expected.grad_hidden_SD), 1e-6);
  EXPECT_LE(RelativeError(at::cat({grad_VD, out.grad_outer_VR}, 1), grad_wide_VD), 1e-6);
  EXPECT_TRUE(at::equal(out.logprobs_S, TokenLogprobs(f.hidden_SD, f.weight_VD, kVocab, f.targets_S, config, term)));
  EXPECT_LE(
      RelativeError(Logits(f.hidden_SD, f.weight_VD, kVocab, config, term), Logits(wide_SD, wide_VD, kVocab, config)),
      1e-6);
}

TEST(ChunkedCrossEntropy, SecondCall_AddsToTheWeightGradient) {
  const Fixture f;
  at::Tensor once = at::zeros({kPadded, kHidden}), twice = at::zeros({kPadded, kHidden});
  TokenLogprobsWithGradients(f.hidden_SD, f.weight_VD, kVocab, f.targets_S, f.coefficient_S, once);
  for (int i = 0; i < 2; ++i) {
    TokenLogprobsWithGradients(f.hidden_SD, f.weight_VD, kVocab, f.targets_S, f.coefficient_S, twice);
  }
  EXPECT_LE(RelativeError(twice, once * 2), 1e-6);
}

TEST(ChunkedCrossEntropy, FrozenWeight_NeedsNoBuffer) {
  const Fixture f;
  at::Tensor with = at::zeros({kPadded, kHidden});
  const auto frozen = TokenLogprobsWithGradients(f.hidden_SD, f.weight_VD, kVocab, f.targets_S, f.coefficient_S, {});
  const auto trained = TokenLogprobsWithGradients(f.hidden_SD, f.weight_VD, kVocab, f.targets_S, f.coefficient_S, with);
  EXPECT_TRUE(at::equal(frozen.grad_hidden_SD, trained.grad_hidden_SD));
}

// More than one tile and slice of the vocabulary, and an odd number of rows.
TEST(ChunkedCrossEntropy, ManyTiles_EqualReference) {
  for (const auto& [dtype, bound] : {std::pair{at::kFloat, 2e-6}, std::pair{at::kBFloat16, 1e-2}}) {
    at::manual_seed(4);
    const int64_t rows = 77, hidden = 48, vocab = 4999, padded = 5056;
    const at::Tensor hidden_SD = at::randn({rows, hidden}).to(dtype), weight_VD = at::randn({padded, hidden}).to(dtype);
    const at::Tensor targets_S = at::randint(vocab, {rows}, at::kLong), coefficient_S = at::randn({rows});
    const at::Tensor hidden64 = hidden_SD.to(at::kDouble).requires_grad_();
    const at::Tensor weight64 = weight_VD.to(at::kDouble).requires_grad_();
    const at::Tensor logprobs64 = at::matmul(hidden64, weight64.narrow(0, 0, vocab).t())
                                      .log_softmax(-1)
                                      .gather(1, targets_S.unsqueeze(1))
                                      .squeeze(1);
    const auto grads = torch::autograd::grad({logprobs64}, {hidden64, weight64}, {coefficient_S.to(at::kDouble)});
    at::Tensor grad_weight_VD = at::zeros({padded, hidden});
    const LogprobGradients out =
        TokenLogprobsWithGradients(hidden_SD, weight_VD, vocab, targets_S, coefficient_S, grad_weight_VD);
    EXPECT_LE(RelativeError(out.logprobs_S, logprobs64), bound);
    EXPECT_LE(RelativeError(out.grad_hidden_SD, grads[0]), bound);
    EXPECT_LE(RelativeError(grad_weight_VD, grads[1]), bound);
  }
}

TEST(ChunkedCrossEntropy, RepeatedOnAnyNumberOfThreads_IsBitIdentical) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    at::manual_seed(5);
    const at::Tensor hidden_SD = at::randn({kRows, kHidden}).to(dtype);
    const at::Tensor weight_VD = at::randn({3 * 128 + 64, kHidden}).to(dtype);
    const at::Tensor targets_S = at::randint(400, {kRows}, at::kLong), coefficient_S = at::randn({kRows});
    ExpectSameBits(cpu::CanTokenLogprobs(hidden_SD, weight_VD), [&] {
      at::Tensor grad_weight_VD = at::zeros(weight_VD.sizes());
      const LogprobGradients out =
          TokenLogprobsWithGradients(hidden_SD, weight_VD, 400, targets_S, coefficient_S, grad_weight_VD);
      return std::vector<at::Tensor>{out.logprobs_S, out.grad_hidden_SD, grad_weight_VD};
    });
  }
}

}  // namespace
}  // namespace temper::ops
