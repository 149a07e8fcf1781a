// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/ops/attention_reference.h"
#include "tests/worker/ops/cuda/cuda_check.h"

namespace temper::ops {
namespace {

struct Case {
  int64_t heads, kv_heads, width;
  std::vector<int64_t> document_starts;
  bool sinks = false;
  double softcap = 0;
  int64_t window = 0;
};

class CudaPackedAttentionTest : public testing::TestWithParam<Case> {};

TEST_P(CudaPackedAttentionTest, OutputAndGradients_EqualReference) {
  at::manual_seed(1);
  const Case& c = GetParam();
  const int64_t tokens = c.document_starts.back();
  const ScoreConfig config = {.scale = 1.5 / std::sqrt(c.width), .softcap = c.softcap, .window = c.window};
  std::vector<at::Tensor> inputs = {Random({tokens, c.heads, c.width}), Random({tokens, c.kv_heads, c.width}),
                                    Random({tokens, c.kv_heads, c.width})};
  if (c.sinks) inputs.push_back(Random({c.heads}));
  const Operator op = [&](const auto& in) {
    return tested::PackedAttention(in[0], in[1], in[2], c.document_starts, config, c.sinks ? in[3] : at::Tensor());
  };
  const Operator reference = [&](const auto& in) { return ReferenceAttention(in, c.document_starts, config); };
  ExpectRightAndRepeatable(op, reference, inputs, at::kFloat, 5e-6);
  ExpectRightAndRepeatable(op, reference, inputs, at::kBFloat16, 2e-2);
}

// A query that sees itself alone has gradients by q and k of exactly 0, to which no error is relative: where there are
// such queries, there are others.
INSTANTIATE_TEST_SUITE_P(Shapes, CudaPackedAttentionTest,
                         testing::Values(Case{1, 1, 32, {0, 1}},
                                         Case{4, 2, 64, {0, 1, 2, 3, 20}},  // one token each, but for the last
                                         Case{4, 4, 32, {0, 17}}, Case{6, 2, 24, {0, 5, 6, 40}},
                                         Case{3, 1, 16, {0, 0, 9, 9, 20, 20}},  // empty documents
                                         Case{2, 1, 8, {0, 511, 1536}},         // around the block of 512 queries
                                         Case{9, 3, 64, {0, 100, 101, 400}}, Case{8, 2, 80, {0, 333}},
                                         Case{8, 8, 96, {0, 64, 200}}, Case{8, 1, 128, {0, 700, 701, 900}},
                                         Case{4, 2, 192, {0, 150, 290}}, Case{4, 2, 256, {0, 150, 290}},
                                         Case{4, 2, 20, {0, 150, 290}},  // no multiple of 8
                                         Case{2, 1, 288, {0, 33, 90}}));

INSTANTIATE_TEST_SUITE_P(Windows, CudaPackedAttentionTest,
                         testing::Values(Case{4, 2, 64, {0, 300, 301, 900}, false, 0, 100},
                                         Case{4, 2, 64, {0, 300}, false, 0, 2},
                                         Case{4, 2, 128, {0, 600, 700}, false, 0, 700},
                                         Case{4, 2, 64, {0, 1500}, false, 0, 64}));

INSTANTIATE_TEST_SUITE_P(Sinks, CudaPackedAttentionTest,
                         testing::Values(Case{8, 2, 64, {0, 1}, true}, Case{8, 2, 64, {0, 300, 301, 700}, true},
                                         Case{8, 2, 64, {0, 300, 301, 700}, true, 0, 128},
                                         Case{4, 4, 128, {0, 65, 65, 200}, true},
                                         Case{4, 2, 64, {0, 200, 333}, true, 2.0, 50}));

INSTANTIATE_TEST_SUITE_P(Softcaps, CudaPackedAttentionTest,
                         testing::Values(Case{4, 2, 64, {0, 1, 300}, false, 1.5},
                                         Case{4, 2, 256, {0, 700, 900}, false, 3.0},
                                         Case{4, 2, 128, {0, 700, 900}, false, 3.0, 200}));

TEST(CudaPackedAttention, HeadsOfAFusedProduct_AreReadWhereTheyLie) {
  const at::Tensor qkv = Random({200, 8, 64}).to(at::kBFloat16);
  const at::Tensor q = qkv.narrow(1, 0, 4), k = qkv.narrow(1, 4, 2), v = qkv.narrow(1, 6, 2);
  const std::vector<int64_t> starts = {0, 90, 200};
  EXPECT_TRUE(
      at::equal(tested::PackedAttention(q, k, v, starts, {.scale = 0.125}),
                tested::PackedAttention(q.contiguous(), k.contiguous(), v.contiguous(), starts, {.scale = 0.125})));
}

}  // namespace
}  // namespace temper::ops
