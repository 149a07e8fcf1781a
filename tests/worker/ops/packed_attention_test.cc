// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/packed_attention.h"

#include "tests/worker/ops/attention_reference.h"
#include "tests/worker/ops/reference_check.h"
#include "tests/worker/ops/repeatable.h"
#include "worker/ops/cpu/operators.h"

namespace temper::ops {
namespace {

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
  const Operator reference = [&](const auto& in) { return ReferenceAttention(in, c.document_starts, c.score); };
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
                                         Case{4, 1, 16, {0, 60}, {.scale = 1.0, .softcap = 3.0, .window = 9}, true},
                                         // Around the blocks of 64.
                                         Case{9, 3, 64, {0, 1, 1, 64, 128, 193}},
                                         Case{2, 1, 128, {0, 129}, {.scale = 0.1}},
                                         Case{2, 2, 256, {0, 70}, {.scale = 0.06}},
                                         Case{2, 1, 80, {0, 190, 260}, {.scale = 0.1, .window = 65}, true},
                                         Case{1, 1, 32, {0, 150}, {.scale = 1.0, .softcap = 2.0}}));

TEST(PackedAttention, RepeatedOnAnyNumberOfThreads_IsBitIdentical) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    at::manual_seed(1);
    // Views into one tensor, as the model has them.
    const at::Tensor qkv = at::randn({230, 8, 32}).to(dtype), grad = at::randn({230, 4, 32}).to(dtype);
    ExpectSameBits(cpu::CanPackedAttention(qkv, qkv, qkv), [&] {
      std::vector<at::Tensor> in = {qkv.narrow(1, 0, 4), qkv.narrow(1, 4, 2), qkv.narrow(1, 6, 2)};
      for (at::Tensor& x : in) x = x.detach().requires_grad_();
      const at::Tensor out = PackedAttention(in[0], in[1], in[2], {0, 30, 230}, {.scale = 0.25});
      std::vector<at::Tensor> results = torch::autograd::grad({out}, in, {grad});
      results.push_back(out);
      return results;
    });
  }
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
