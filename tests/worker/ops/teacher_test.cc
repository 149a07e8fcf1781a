// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/teacher.h"

#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "tests/worker/ops/divergence_reference.h"
#include "tests/worker/ops/reference_check.h"
#include "tests/worker/ops/repeatable.h"
#include "worker/ops/chunked_cross_entropy.h"

namespace temper::ops {
namespace {

// More rows than one chunk has; heads of different widths and vocabularies, with padding.
constexpr int64_t kRows = 300, kHidden = 24, kVocab = 90, kPadded = 128;
constexpr int64_t kTeacherHidden = 40, kTeacherVocab = 70, kTeacherPadded = 96;

// In fp64, as autograd wants it.
at::Tensor Logits64(const at::Tensor& hidden, const at::Tensor& weight, int64_t vocab, const LogitConfig& config) {
  const at::Tensor logits = at::matmul(hidden, weight.narrow(0, 0, vocab).t()) * config.scale;
  return config.softcap * (logits / config.softcap).tanh();
}

// A head whose rows are compared with a teacher's.
struct Head {
  explicit Head(at::ScalarType dtype = at::kFloat) {
    at::manual_seed(3);
    hidden_SD = at::randn({kRows, kHidden}).to(dtype);
    weight_VD = at::randn({kPadded, kHidden}).to(dtype);
    targets_S = at::randint(kTeacherVocab, {kRows}, at::kLong);
    coefficient_S = at::randn({kRows});
  }

  LogprobGradients Backward(const Teacher& teacher, double weight, at::Tensor grad_weight_VD) const {
    return TokenLogprobsWithGradients(hidden_SD, weight_VD, kVocab, targets_S, coefficient_S, grad_weight_VD,
                                      {.divergence = weight, .teacher = &teacher}, config);
  }

  at::Tensor hidden_SD, weight_VD, targets_S, coefficient_S;
  LogitConfig config = {.scale = 0.5, .softcap = 6.0};
};

struct OtherHead {
  explicit OtherHead(at::ScalarType dtype = at::kFloat) {
    at::manual_seed(4);
    hidden_SD = at::randn({kRows, kTeacherHidden}).to(dtype);
    weight_VD = (at::randn({kTeacherPadded, kTeacherHidden}) * 0.3).to(dtype);
  }

  TeacherHead With(const DivergenceConfig& divergence) const {
    return {hidden_SD, weight_VD, kTeacherVocab, config, divergence};
  }
  at::Tensor Logits() const {
    return Logits64(hidden_SD.to(at::kDouble), weight_VD.to(at::kDouble), kTeacherVocab, config);
  }

  at::Tensor hidden_SD, weight_VD;
  LogitConfig config = {.scale = 2.0, .softcap = 5.0};
};

// `divergence64`: of the head's logits [S, V], summed.
LogprobGradients ExpectEqualsReference(const Head& head, const Teacher& teacher, double bound,
                                       const std::function<at::Tensor(const at::Tensor& logits)>& divergence64) {
  const at::Tensor hidden64 = head.hidden_SD.to(at::kDouble).requires_grad_();
  const at::Tensor weight64 = head.weight_VD.to(at::kDouble).requires_grad_();
  const at::Tensor logits64 = Logits64(hidden64, weight64, kVocab, head.config);
  const at::Tensor divergence = divergence64(logits64);
  const at::Tensor logprobs64 = logits64.log_softmax(1).gather(1, head.targets_S.unsqueeze(1)).squeeze(1);
  const at::Tensor loss64 = 0.3 * divergence + (logprobs64 * head.coefficient_S).sum();
  const auto grads = torch::autograd::grad({loss64}, {hidden64, weight64});

  at::Tensor grad_weight_VD = at::zeros(head.weight_VD.sizes());
  LogprobGradients out = head.Backward(teacher, 0.3, grad_weight_VD);
  EXPECT_LE(RelativeError(out.logprobs_S, logprobs64), bound);
  EXPECT_LE(RelativeError(out.grad_hidden_SD, grads[0]), bound);
  EXPECT_LE(RelativeError(grad_weight_VD, grads[1]), bound);
  EXPECT_NEAR(out.comparison.divergence, divergence.item<double>(), bound * divergence.item<double>());
  EXPECT_DOUBLE_EQ(out.penalty, 0.3 * out.comparison.divergence);

  const ComparedLogprobs forward =
      CompareLogprobs(head.hidden_SD, head.weight_VD, kVocab, head.targets_S, teacher, head.config);
  EXPECT_TRUE(at::equal(forward.logprobs_S, out.logprobs_S));
  EXPECT_EQ(forward.comparison.divergence, out.comparison.divergence);
  EXPECT_EQ(forward.comparison.teacher_logprob, out.comparison.teacher_logprob);
  EXPECT_EQ(forward.comparison.agreements, out.comparison.agreements);
  return out;
}

class TeacherHeadTest : public testing::TestWithParam<DivergenceCase> {};

INSTANTIATE_TEST_SUITE_P(Kinds, TeacherHeadTest, testing::ValuesIn(DivergenceCases()),
                         [](const auto& each) { return each.param.name; });

TEST_P(TeacherHeadTest, LossAndGradients_EqualReference) {
  for (const auto& [dtype, bound] : {std::pair{at::kFloat, 3e-6}, std::pair{at::kBFloat16, 2e-2}}) {
    const Head head(dtype);
    const OtherHead other(dtype);
    const at::Tensor teacher64 = other.Logits();
    at::Tensor student64;
    // Of the tokens that both have; a token's own log-probability is among all of its model's.
    const auto divergence64 = [&](const at::Tensor& logits) {
      student64 = logits.narrow(1, 0, kTeacherVocab);
      return DivergenceReference(student64, teacher64, GetParam().config);
    };
    const LogprobGradients out = ExpectEqualsReference(head, other.With(GetParam().config), bound, divergence64);
    const double logprob = teacher64.log_softmax(1).gather(1, head.targets_S.unsqueeze(1)).sum().item<double>();
    EXPECT_NEAR(out.comparison.teacher_logprob, logprob, bound * std::abs(logprob));
    if (dtype != at::kFloat) continue;
    EXPECT_EQ(out.comparison.agreements, (student64.argmax(1) == teacher64.argmax(1)).sum().item<double>());
  }
}

TEST(TeacherHeadTest, LowRankTerm_IsMoreColumnsOfBothFactors) {
  constexpr int64_t kRank = 3;
  const Head head;
  const OtherHead other;
  const TeacherHead teacher = other.With({.kind = DivergenceKind::kJsd});
  const LowRankTerm term = {at::randn({kRows, kRank}), at::randn({kPadded, kRank})};
  const at::Tensor wide_SD = at::cat({head.hidden_SD, term.inner_SR}, 1);
  const at::Tensor wide_VD = at::cat({head.weight_VD, term.outer_VR}, 1);
  const DistributionPenalty penalty = {.divergence = 1, .teacher = &teacher};
  at::Tensor grad_VD = at::zeros({kPadded, kHidden}), grad_wide_VD = at::zeros({kPadded, kHidden + kRank});
  const LogprobGradients expected =
      TokenLogprobsWithGradients(wide_SD, wide_VD, kVocab, head.targets_S, head.coefficient_S, grad_wide_VD, penalty);
  const LogprobGradients out = TokenLogprobsWithGradients(head.hidden_SD, head.weight_VD, kVocab, head.targets_S,
                                                          head.coefficient_S, grad_VD, penalty, {}, term);
  EXPECT_NEAR(out.penalty, expected.penalty, 1e-6 * expected.penalty);
  EXPECT_LE(RelativeError(at::cat({out.grad_hidden_SD, out.grad_inner_SR}, 1), expected.grad_hidden_SD), 1e-6);
  EXPECT_LE(RelativeError(at::cat({grad_VD, out.grad_outer_VR}, 1), grad_wide_VD), 1e-6);
  EXPECT_EQ(
      CompareLogprobs(head.hidden_SD, head.weight_VD, kVocab, head.targets_S, teacher, {}, term).comparison.divergence,
      out.comparison.divergence);
}

// The most probable tokens of distributions over the head's vocabulary: 1, 2, … 5, 1, … of a row.
struct Stored {
  Stored() {
    at::manual_seed(5);
    p_SV = (at::randn({kRows, kVocab}, at::kDouble) * 2).softmax(1);
    for (int64_t row = 0; row < kRows; ++row) {
      const auto [values, ids] = p_SV[row].topk(1 + row % 5);
      starts.push_back(starts.back() + ids.size(0));
      tokens.push_back(ids);
      logprobs.push_back(values.log().to(at::kFloat));
    }
  }

  StoredTeacher Teacher() const { return {starts, at::cat(tokens), at::cat(logprobs)}; }

  // Two distributions over the stored tokens and one class of all others.
  at::Tensor Divergence(const at::Tensor& logits) const {
    const at::Tensor q_SV = logits.softmax(1);
    at::Tensor sum = at::zeros({}, at::kDouble);
    const auto kl = [](const at::Tensor& p, const at::Tensor& q) { return (p * (p.log() - q.log())).sum(); };
    for (int64_t row = 0; row < kRows; ++row) {
      const at::Tensor p = logprobs[row].to(at::kDouble).exp(), q = q_SV[row].index_select(0, tokens[row]);
      sum = sum + kl(p, q) + kl(1 - p.sum(), 1 - q.sum());
    }
    return sum;
  }

  at::Tensor p_SV;
  std::vector<int64_t> starts = {0};
  std::vector<at::Tensor> tokens, logprobs;
};

TEST(StoredTeacherTest, LossAndGradients_EqualReference) {
  const Stored stored;
  for (const auto& [dtype, bound] : {std::pair{at::kFloat, 3e-6}, std::pair{at::kBFloat16, 2e-2}}) {
    const Head head(dtype);
    at::Tensor most_S;
    const LogprobGradients out = ExpectEqualsReference(head, stored.Teacher(), bound, [&](const at::Tensor& logits) {
      most_S = logits.argmax(1);
      EXPECT_LT(stored.Divergence(logits).item<double>(),
                (stored.p_SV * (stored.p_SV.log() - logits.log_softmax(1))).sum().item<double>());
      return stored.Divergence(logits);
    });
    EXPECT_EQ(out.comparison.teacher_logprob, 0);
    if (dtype != at::kFloat) continue;
    EXPECT_EQ(out.comparison.agreements, (most_S == stored.p_SV.argmax(1)).sum().item<double>());
  }
}

TEST(StoredTeacherTest, AllOfTheProbability_IsFinite) {
  const Head head;
  std::vector<int64_t> starts = {0};
  for (int64_t row = 0; row < kRows; ++row) starts.push_back(row + 1);
  const StoredTeacher certain(starts, head.targets_S, at::zeros({kRows}));
  at::Tensor grad_weight_VD = at::zeros(head.weight_VD.sizes());
  const LogprobGradients out = head.Backward(certain, 1, grad_weight_VD);
  EXPECT_NEAR(out.comparison.divergence, -out.logprobs_S.sum().item<double>(), 1e-3);  // cross-entropy
  EXPECT_TRUE(out.grad_hidden_SD.isfinite().all().item<bool>());
  EXPECT_TRUE(grad_weight_VD.isfinite().all().item<bool>());
}

TEST(TeacherTest, Repeated_IsBitIdentical) {
  const Head head;
  const OtherHead other;
  const TeacherHead of_head = other.With({.kind = DivergenceKind::kReverseKl});
  const StoredTeacher stored = Stored().Teacher();
  for (const Teacher* teacher : {static_cast<const Teacher*>(&of_head), static_cast<const Teacher*>(&stored)}) {
    ExpectSameBits(/*any_number_of_threads=*/false, [&] {
      at::Tensor grad_weight_VD = at::zeros(head.weight_VD.sizes());
      const LogprobGradients out = head.Backward(*teacher, 1, grad_weight_VD);
      return std::vector<at::Tensor>{out.logprobs_S, out.grad_hidden_SD, grad_weight_VD};
    });
  }
}

}  // namespace
}  // namespace temper::ops
