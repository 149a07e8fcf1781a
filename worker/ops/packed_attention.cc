// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/packed_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "worker/ops/attention_blocks.h"
#include "worker/ops/cpu/operators.h"
#include "worker/ops/cuda_dispatch.h"

namespace temper::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Which keys of a block its queries do not see: later ones, and ones that the window has left behind.
void Hide(at::Tensor& scores, const Block& block, int64_t window) {
  const float never = -std::numeric_limits<float>::infinity();
  const int64_t queries = block.queries(), keys = block.keys(), before = block.begin - block.start;
  // Only the last `queries` columns can be the future: a square whose upper triangle it is.
  at::Tensor diagonal = scores.narrow(3, before, queries);
  diagonal.masked_fill_(at::ones({queries, queries}, scores.options().dtype(at::kBool)).triu_(/*diagonal=*/1), never);
  if (window <= 0 || window >= keys) return;
  // Query i stands at column before + i and sees columns from before + i − window + 1 on.
  scores.masked_fill_(at::ones({queries, keys}, scores.options().dtype(at::kBool)).tril_(before - window), never);
}

// The scores of a block [K, G, B, S], fp32, −inf where a key is hidden; `slope`, if asked for, is what the softcap's
// derivative is.
at::Tensor Scores(const at::Tensor& q_KGBd, const at::Tensor& k_KSd, const Block& block, const ScoreConfig& config,
                  at::Tensor* slope = nullptr) {
  at::Tensor scores = at::bmm(q_KGBd, k_KSd.transpose(1, 2)).to(at::kFloat).mul_(config.scale);
  scores = scores.view({k_KSd.size(0), -1, block.queries(), block.keys()});
  if (config.softcap > 0) {
    scores.div_(config.softcap).tanh_();
    if (slope != nullptr) *slope = 1 - scores.square();
    scores.mul_(config.softcap);
  }
  Hide(scores, block, config.window);
  return scores;
}

class PackedAttentionFunction : public torch::autograd::Function<PackedAttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_THd, const at::Tensor& k_TKd,
                            const at::Tensor& v_TKd, const std::optional<at::Tensor>& given_sinks_H,
                            const std::vector<int64_t>& document_starts, const ScoreConfig& config) {
    const at::Tensor sinks_H = given_sinks_H.value_or(at::Tensor());
    const int64_t num_kv_heads = k_TKd.size(1);
    const int64_t group = q_THd.size(1) / num_kv_heads;
    at::Tensor out_THd = at::empty_like(q_THd, at::MemoryFormat::Contiguous);
    // Head-major, so that a block's part has the shape of its scores without their last dimension.
    at::Tensor logsumexp_KGT = at::empty({num_kv_heads, group, q_THd.size(0)}, q_THd.options().dtype(at::kFloat));
    at::Tensor sinks_KG1;
    if (sinks_H.defined()) sinks_KG1 = sinks_H.to(at::kFloat).view({num_kv_heads, group, 1});
    ForEachBlock(document_starts, config.window, [&](const Block& block) {
      at::Tensor scores = Scores(QueryRows(q_THd, block, num_kv_heads), KeyRows(k_TKd, block), block, config);
      at::Tensor lse = at::logsumexp(scores, {-1});
      if (sinks_KG1.defined()) lse = at::logaddexp(lse, sinks_KG1);
      logsumexp_KGT.narrow(2, block.begin, block.queries()).copy_(lse);
      const at::Tensor weights =
          scores.sub_(lse.unsqueeze(-1)).exp_().to(v_TKd.scalar_type()).view({num_kv_heads, -1, block.keys()});
      StoreQueryRows(at::bmm(weights, KeyRows(v_TKd, block)), block, num_kv_heads, out_THd);
    });
    context->save_for_backward({q_THd, k_TKd, v_TKd, sinks_H, out_THd, logsumexp_KGT});
    context->saved_data["document_starts"] = document_starts;
    context->saved_data["scale"] = config.scale;
    context->saved_data["softcap"] = config.softcap;
    context->saved_data["window"] = config.window;
    return out_THd;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &q_THd = saved[0], &k_TKd = saved[1], &v_TKd = saved[2], &sinks_H = saved[3], &out_THd = saved[4];
    const at::Tensor& logsumexp_KGT = saved[5];
    const std::vector<int64_t> document_starts = context->saved_data["document_starts"].toIntVector();
    const ScoreConfig config{.scale = context->saved_data["scale"].toDouble(),
                             .softcap = context->saved_data["softcap"].toDouble(),
                             .window = context->saved_data["window"].toInt()};
    const at::Tensor grad_out_THd = grad[0].contiguous();
    const int64_t num_kv_heads = k_TKd.size(1);
    const auto dtype = q_THd.scalar_type();

    at::Tensor grad_q_THd = at::empty_like(q_THd, at::MemoryFormat::Contiguous);
    // Several blocks of queries add to the same keys: fp32 until the end.
    const auto fp32 = k_TKd.options().dtype(at::kFloat);
    at::Tensor grad_k_KTd = at::zeros({num_kv_heads, k_TKd.size(0), k_TKd.size(2)}, fp32);
    at::Tensor grad_v_KTd = at::zeros_like(grad_k_KTd);
    // rowsum(P ∘ dP) = rowsum(dO ∘ O).
    const at::Tensor delta_THx = (grad_out_THd.to(at::kFloat) * out_THd).sum(-1, /*keepdim=*/true);

    ForEachBlock(document_starts, config.window, [&](const Block& block) {
      const at::Tensor q = QueryRows(q_THd, block, num_kv_heads);
      const at::Tensor k = KeyRows(k_TKd, block);
      const at::Tensor grad_out = QueryRows(grad_out_THd, block, num_kv_heads);
      const at::Tensor lse = logsumexp_KGT.narrow(2, block.begin, block.queries()).unsqueeze(-1);
      at::Tensor slope;
      const at::Tensor weights =
          Scores(q, k, block, config, &slope).sub_(lse).exp_().view({num_kv_heads, -1, block.keys()});
      const at::Tensor rounded = weights.to(dtype);
      grad_v_KTd.narrow(1, block.start, block.keys()).add_(at::bmm(rounded.transpose(1, 2), grad_out));
      at::Tensor grad_weights = at::bmm(grad_out, KeyRows(v_TKd, block).transpose(1, 2)).to(at::kFloat);
      at::Tensor grad_fp32 =
          grad_weights.sub_(QueryRows(delta_THx, block, num_kv_heads)).mul_(weights).mul_(config.scale);
      if (slope.defined()) grad_fp32.mul_(slope.view_as(grad_fp32));
      const at::Tensor grad_scores = grad_fp32.to(dtype);
      StoreQueryRows(at::bmm(grad_scores, k), block, num_kv_heads, grad_q_THd);
      grad_k_KTd.narrow(1, block.start, block.keys()).add_(at::bmm(grad_scores.transpose(1, 2), q));
    });
    at::Tensor grad_sinks_H;
    if (sinks_H.defined()) {
      // Its value is zero, so dS = P · (0 − rowsum(P ∘ dP)).
      const at::Tensor lse_HT = logsumexp_KGT.view({-1, q_THd.size(0)});
      const at::Tensor weight_HT = (sinks_H.to(at::kFloat).unsqueeze(1) - lse_HT).exp_();
      grad_sinks_H = (weight_HT * delta_THx.squeeze(-1).t()).sum(1).neg_().to(sinks_H.scalar_type());
    }
    return {grad_q_THd,
            grad_k_KTd.transpose(0, 1).to(dtype),
            grad_v_KTd.transpose(0, 1).to(dtype),
            grad_sinks_H,
            at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor PackedAttention(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd,
                           const std::vector<int64_t>& document_starts, const ScoreConfig& config,
                           const at::Tensor& sinks_H) {
  TORCH_CHECK(q_THd.size(1) % k_TKd.size(1) == 0, "query heads (", q_THd.size(1),
              ") must be a multiple of key/value heads (", k_TKd.size(1), ")");
  TORCH_CHECK(!document_starts.empty() && document_starts.front() == 0 && document_starts.back() == q_THd.size(0),
              "document_starts must go from 0 to the number of tokens");
  RETURN_IF_CUDA(q_THd, PackedAttention(q_THd, k_TKd, v_TKd, document_starts, config, sinks_H));
  if (cpu::CanPackedAttention(q_THd, k_TKd, v_TKd)) {
    return cpu::PackedAttention(q_THd, k_TKd, v_TKd, document_starts, config, sinks_H);
  }
  // autograd::Function takes no undefined tensor.
  const std::optional<at::Tensor> given_sinks_H = sinks_H.defined() ? std::optional(sinks_H) : std::nullopt;
  return PackedAttentionFunction::apply(q_THd, k_TKd, v_TKd, given_sinks_H, document_starts, config);
}

int64_t CountAttentionPairs(const std::vector<int64_t>& document_starts, int64_t window) {
  int64_t pairs = 0;
  for (size_t i = 0; i + 1 < document_starts.size(); ++i) {
    const int64_t length = document_starts[i + 1] - document_starts[i];
    const int64_t seen = window > 0 ? std::min(window, length) : length;
    pairs += length * seen - seen * (seen - 1) / 2;
  }
  return pairs;
}

}  // namespace temper::ops
