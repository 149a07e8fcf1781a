// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/ops/cuda/cuda_check.h"

namespace temper::ops {
namespace {

struct Case {
  int64_t rows, hidden, vocab, padded;
  LogitConfig config = {};
  DistributionPenalty penalty = {};
};

struct Inputs {
  explicit Inputs(const Case& c)
      : hidden_SD(Random({c.rows, c.hidden})),
        weight_VD(Random({c.padded, c.hidden}) / std::sqrt(c.hidden) * 2),
        targets_S(at::randint(c.vocab, {c.rows}, at::TensorOptions(at::kCUDA).dtype(at::kLong))),
        coefficient_S(Random({c.rows})) {}
  at::Tensor hidden_SD, weight_VD, targets_S, coefficient_S;
};

at::Tensor ReferenceLogits(const at::Tensor& hidden_SD, const at::Tensor& weight_VD, const Case& c) {
  const at::Tensor logits = at::matmul(hidden_SD, weight_VD.narrow(0, 0, c.vocab).t()) * c.config.scale;
  return c.config.softcap > 0 ? (logits / c.config.softcap).tanh() * c.config.softcap : logits;
}

class CudaChunkedCrossEntropyTest : public testing::TestWithParam<Case> {};

TEST_P(CudaChunkedCrossEntropyTest, LogprobsPenaltyAndGradients_EqualReference) {
  const Case& c = GetParam();
  for (const auto& [dtype, bound] : {std::pair{at::kFloat, 2e-6}, std::pair{at::kBFloat16, 1e-2}}) {
    at::manual_seed(1);
    const Inputs in(c);
    const at::Tensor hidden_SD = in.hidden_SD.to(dtype), weight_VD = in.weight_VD.to(dtype);
    const at::Tensor hidden64 = hidden_SD.to(at::kDouble).requires_grad_();
    const at::Tensor weight64 = weight_VD.to(at::kDouble).requires_grad_();
    const at::Tensor logits64 = ReferenceLogits(hidden64, weight64, c);
    const at::Tensor logprobs64 = logits64.log_softmax(-1).gather(1, in.targets_S.unsqueeze(1)).squeeze(1);
    const at::Tensor penalty64 = c.penalty.uniform * -logits64.log_softmax(-1).mean(-1).sum() +
                                 c.penalty.log_normalizer * logits64.logsumexp(-1).square().sum();
    const auto grads = torch::autograd::grad({(logprobs64 * in.coefficient_S).sum() + penalty64}, {hidden64, weight64});

    const at::Tensor before_VD = Random({c.padded, c.hidden});
    at::Tensor grad_weight_VD = before_VD.clone();
    LogprobGradients out;
    {
      const PoisonedMemory poisoned;
      out = tested::TokenLogprobsWithGradients(hidden_SD, weight_VD, c.vocab, in.targets_S, in.coefficient_S,
                                               grad_weight_VD, c.penalty, c.config);
    }
    EXPECT_LE(RelativeError(out.logprobs_S, logprobs64), bound);
    EXPECT_LE(RelativeError(out.grad_hidden_SD, grads[0]), bound);
    EXPECT_LE(RelativeError(grad_weight_VD, before_VD.to(at::kDouble) + grads[1]), bound);
    EXPECT_NEAR(out.penalty, penalty64.item<double>(), 1e-3 * std::abs(penalty64.item<double>()));
    const at::Tensor again = tested::TokenLogprobs(hidden_SD, weight_VD, c.vocab, in.targets_S, c.config);
    EXPECT_TRUE(at::equal(out.logprobs_S, again));

    const auto frozen = tested::TokenLogprobsWithGradients(hidden_SD, weight_VD, c.vocab, in.targets_S,
                                                           in.coefficient_S, {}, c.penalty, c.config);
    EXPECT_TRUE(at::equal(frozen.grad_hidden_SD, out.grad_hidden_SD));
    at::Tensor repeated_VD = before_VD.clone();
    tested::TokenLogprobsWithGradients(hidden_SD, weight_VD, c.vocab, in.targets_S, in.coefficient_S, repeated_VD,
                                       c.penalty, c.config);
    EXPECT_TRUE(at::equal(repeated_VD, grad_weight_VD));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, CudaChunkedCrossEntropyTest,
    testing::Values(Case{1, 8, 2, 8}, Case{300, 24, 90, 128}, Case{37, 64, 1000, 1000}, Case{50, 40, 997, 997},
                    Case{50, 40, 997, 1000}, Case{1500, 64, 128256, 128256},  // more than one chunk
                    Case{120, 256, 49152, 49152, {.scale = 0.25}},
                    Case{90, 128, 5000, 5008, {.scale = 1.5, .softcap = 3.0}},
                    Case{77, 96, 3000, 3072, {}, {.uniform = 0.3, .log_normalizer = 0.05}},
                    Case{77, 96, 3000, 3072, {.softcap = 5.0}, {.uniform = 0.1, .log_normalizer = 0.01}}));

TEST(CudaChunkedCrossEntropy, NoRows_GiveNothing) {
  const Case c = {0, 16, 50, 64};
  const Inputs in(c);
  EXPECT_EQ(tested::TokenLogprobs(in.hidden_SD, in.weight_VD, c.vocab, in.targets_S).numel(), 0);
}

}  // namespace
}  // namespace temper::ops
