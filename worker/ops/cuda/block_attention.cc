// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "worker/ops/attention_blocks.h"
#include "worker/ops/cuda/attention.h"
#include "worker/ops/cuda/attention_score_kernel.h"
#include "worker/ops/cuda/launch.h"

// Legend: as in worker/ops/attention_blocks.h.

namespace temper::ops::cuda {
namespace {

// A batched product in fp32, whatever its factors are.
at::Tensor Product(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == at::kFloat ? at::bmm(a, b) : at::bmm(a, b, at::kFloat);
}

// products: [K, G·B, S].
AttentionScores ScoresOf(const at::Tensor& products, const Block& block, int64_t heads, int64_t tokens,
                         const ScoreConfig& config) {
  return {.products = products.const_data_ptr<float>(),
          .heads = heads,
          .queries = block.queries(),
          .keys = block.keys(),
          .before = block.begin - block.start,
          .first_token = block.begin,
          .tokens = tokens,
          .scale = static_cast<float>(config.scale),
          .softcap = static_cast<float>(config.softcap),
          .window = config.window};
}

}  // namespace

AttentionOutput BlockForward(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd,
                             const std::vector<int64_t>& document_starts, const ScoreConfig& config) {
  const int64_t tokens = q_THd.size(0), heads = q_THd.size(1), num_kv_heads = k_TKd.size(1);
  AttentionOutput output{at::empty_like(q_THd, at::MemoryFormat::Contiguous),
                         at::empty({heads, tokens}, q_THd.options().dtype(at::kFloat))};
  ForEachBlock(document_starts, config.window, [&](const Block& block) {
    const at::Tensor products = Product(QueryRows(q_THd, block, num_kv_heads), KeyRows(k_TKd, block).transpose(1, 2));
    const at::Tensor weights = at::empty(products.sizes(), q_THd.options());
    Launch(products, [&](cudaStream_t stream) {
      AttentionWeights(ScoresOf(products, block, heads, tokens, config), ElementTypeOf(weights),
                       weights.mutable_data_ptr(), output.lse_HT.mutable_data_ptr<float>(), stream);
    });
    StoreQueryRows(at::bmm(weights, KeyRows(v_TKd, block)), block, num_kv_heads, output.out_THd);
  });
  return output;
}

AttentionGradients BlockBackward(const AttentionBackwardInput& in, const std::vector<int64_t>& document_starts,
                                 const ScoreConfig& config) {
  const int64_t tokens = in.q_THd.size(0), heads = in.q_THd.size(1), num_kv_heads = in.k_TKd.size(1);
  const auto dtype = in.q_THd.scalar_type();
  at::Tensor grad_q_THd = at::empty_like(in.q_THd, at::MemoryFormat::Contiguous);
  // Several blocks of queries add to the same keys: fp32 until the end.
  at::Tensor grad_k_KTd = at::zeros({num_kv_heads, tokens, in.k_TKd.size(2)}, in.k_TKd.options().dtype(at::kFloat));
  at::Tensor grad_v_KTd = at::zeros_like(grad_k_KTd);
  // rowsum(P ∘ dP) = rowsum(dO ∘ O).
  const at::Tensor delta_TH = (in.grad_out_THd.to(at::kFloat) * in.output.out_THd).sum(-1);
  ForEachBlock(document_starts, config.window, [&](const Block& block) {
    const at::Tensor q = QueryRows(in.q_THd, block, num_kv_heads), k = KeyRows(in.k_TKd, block);
    const at::Tensor grad_out = QueryRows(in.grad_out_THd, block, num_kv_heads);
    const at::Tensor products = Product(q, k.transpose(1, 2));
    const at::Tensor grad_weights = Product(grad_out, KeyRows(in.v_TKd, block).transpose(1, 2));
    const at::Tensor weights = at::empty(products.sizes(), in.q_THd.options());
    const at::Tensor grad_products = at::empty_like(weights);
    Launch(products, [&](cudaStream_t stream) {
      AttentionScoreGradient(ScoresOf(products, block, heads, tokens, config), in.output.lse_HT.const_data_ptr<float>(),
                             grad_weights.const_data_ptr<float>(), delta_TH.const_data_ptr<float>(),
                             ElementTypeOf(weights), weights.mutable_data_ptr(), grad_products.mutable_data_ptr(),
                             stream);
    });
    grad_v_KTd.narrow(1, block.start, block.keys()).add_(Product(weights.transpose(1, 2), grad_out));
    StoreQueryRows(at::bmm(grad_products, k), block, num_kv_heads, grad_q_THd);
    grad_k_KTd.narrow(1, block.start, block.keys()).add_(Product(grad_products.transpose(1, 2), q));
  });
  return {grad_q_THd, grad_k_KTd.transpose(0, 1).to(dtype), grad_v_KTd.transpose(0, 1).to(dtype)};
}

}  // namespace temper::ops::cuda
