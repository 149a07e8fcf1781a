// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/packed_attention.h"

#include <limits>

#include "tests/worker/ops/reference_check.h"

namespace temper::ops {
namespace {

// One T × T matrix of scores with the mask written out.
at::Tensor Reference(const std::vector<at::Tensor>& in, const std::vector<int64_t>& document_starts,
                     const ScoreConfig& config) {
  const int64_t tokens = in[0].size(0), group = in[0].size(1) / in[1].size(1);
  at::Tensor document_T = at::zeros({tokens}, at::kLong);
  for (size_t i = 1; i + 1 < document_starts.size(); ++i) document_T.slice(0, document_starts[i]) += 1;
  at::Tensor visible =
      document_T.unsqueeze(1).eq(document_T.unsqueeze(0)).logical_and(at::ones({tokens, tokens}, at::kBool).tril());
  if (config.window > 0) visible = visible.logical_and(at::ones({tokens, tokens}, at::kBool).triu(1 - config.window));
  const at::Tensor k = in[1].repeat_interleave(group, 1), v = in[2].repeat_interleave(group, 1);
  at::Tensor scores = at::einsum("thd,shd->hts", {in[0], k}) * config.scale;
  if (config.softcap > 0) scores = config.softcap * (scores / config.softcap).tanh();
  scores = scores.masked_fill(visible.logical_not(), -std::numeric_limits<double>::infinity());
  if (in.size() == 4) {  // a key of its own, without a value
    const at::Tensor sinks = in[3].view({-1, 1, 1}).expand({in[3].size(0), tokens, 1});
    return at::einsum("hts,shd->thd", {at::cat({scores, sinks}, -1).softmax(-1).narrow(-1, 0, tokens), v});
  }
  return at::einsum("hts,shd->thd", {scores.softmax(-1), v});
}

struct Case {
  int64_t heads, kv_heads, width;
  std::vector<int64_t> document_starts;
  ScoreConfig score = {.scale = 0.2};
  bool sinks = false;
};

class PackedAttentionTest : public testing::TestWithParam<Case> {};

TEST_P(PackedAttentionTest, OutputAndGradients_EqualReference) {
  at::manual_seed(1);
  const Case& c = GetParam();
  const int64_t tokens = c.document_starts.back();
  std::vector<at::Tensor> inputs = {at::randn({tokens, c.heads, c.width}), at::randn({tokens, c.kv_heads, c.width}),
                                    at::randn({tokens, c.kv_heads, c.width})};
  if (c.sinks) inputs.push_back(at::randn({c.heads}));
  const Operator op = [&](const auto& in) {
    return PackedAttention(in[0], in[1], in[2], c.document_starts, c.score, c.sinks ? in[3] : at::Tensor());
  };
  const Operator reference = [&](const auto& in) { return Reference(in, c.document_starts, c.score); };
  ExpectEqualsReference(op, reference, inputs, at::kFloat, 2e-6);
  ExpectEqualsReference(op, reference, inputs, at::kBFloat16, 2e-2);
}

INSTANTIATE_TEST_SUITE_P(Shapes, PackedAttentionTest,
                         testing::Values(Case{1, 1, 2, {0, 1}}, Case{4, 4, 32, {0, 17}}, Case{6, 2, 24, {0, 5, 6, 40}},
                                         Case{3, 1, 16, {0, 0, 9, 9, 20}},  // empty documents
                                         Case{2, 1, 8, {0, 511, 1536}},     // around the block of 512 queries
                                         Case{4, 2, 16, {0, 30, 31, 50}, {.scale = 0.2, .window = 7}},
                                         Case{2, 1, 8, {0, 40}, {.scale = 0.2, .window = 2}},
                                         Case{2, 1, 8, {0, 700, 1400}, {.scale = 0.2, .window = 130}},
                                         Case{4, 2, 16, {0, 30, 50}, {.scale = 1.0, .softcap = 2.0}},
                                         Case{4, 2, 16, {0, 30, 50}, {.scale = 0.2}, true},
                                         Case{4, 1, 16, {0, 60}, {.scale = 1.0, .softcap = 3.0, .window = 9}, true}));

TEST(PackedAttention, RepeatedRun_IsBitIdentical) {
  const at::Tensor q = at::randn({90, 4, 16}), k = at::randn({90, 2, 16}), v = at::randn({90, 2, 16});
  EXPECT_TRUE(at::equal(PackedAttention(q, k, v, {0, 30, 90}, {.scale = 0.25}),
                        PackedAttention(q, k, v, {0, 30, 90}, {.scale = 0.25})));
}

TEST(PackedAttention, WrongDocumentStarts_Throw) {
  const at::Tensor x = at::randn({8, 1, 4});
  EXPECT_THROW(PackedAttention(x, x, x, {0, 7}, {}), c10::Error);
  EXPECT_THROW(PackedAttention(x, x, x, {}, {}), c10::Error);
}

TEST(CountAttentionPairs, Documents_AreSummedOneByOne) { EXPECT_EQ(CountAttentionPairs({0, 3, 3, 7}), 6 + 0 + 10); }

TEST(CountAttentionPairs, Window_CutsLongDocumentsOnly) {
  EXPECT_EQ(CountAttentionPairs({0, 2, 7}, 3), (1 + 2) + (1 + 2 + 3 + 3 + 3));
}

}  // namespace
}  // namespace temper::ops
