// SPDX-License-Identifier: Apache-2.0
#include "worker/model/attention.h"

#include <ATen/ATen.h>

#include "worker/ops/packed_attention.h"
#include "worker/ops/rope.h"

// Legend: T tokens, D hidden, H query heads, K key/value heads, d head width.

namespace temper {

Attention::Attention(const std::string& name, const ModelConfig& config, const WeightOptions& options)
    : config_(config.attention),
      qkv_(name + ".qkv",
           {{name + ".q", config_.num_heads * config_.head_dim},
            {name + ".k", config_.num_kv_heads * config_.head_dim},
            {name + ".v", config_.num_kv_heads * config_.head_dim}},
           config.hidden_size, config_.qkv_bias, options),
      output_(name + ".o", {{name + ".o", config.hidden_size}}, config_.num_heads * config_.head_dim,
              config_.output_bias, options) {}

at::Tensor Attention::Forward(const at::Tensor& x_TD, const BatchContext& context) const {
  const int64_t tokens = x_TD.size(0);
  const int64_t heads = config_.num_heads, kv_heads = config_.num_kv_heads, width = config_.head_dim;
  const std::vector<at::Tensor> qkv =
      qkv_.Forward(x_TD).view({tokens, heads + 2 * kv_heads, width}).split({heads, kv_heads, kv_heads}, 1);
  const at::Tensor q_THd = ops::ApplyRope(qkv[0], context.rope);
  const at::Tensor k_TKd = ops::ApplyRope(qkv[1], context.rope);
  const at::Tensor out_THd = ops::PackedAttention(q_THd, k_TKd, qkv[2], context.document_starts, config_.scale);
  return output_.Forward(out_THd.view({tokens, heads * width}));
}

}  // namespace temper
