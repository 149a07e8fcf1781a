// SPDX-License-Identifier: Apache-2.0
#include "worker/model/attention.h"

#include <ATen/ATen.h>

#include "worker/model/parameter_init.h"
#include "worker/ops/packed_attention.h"
#include "worker/ops/rope.h"

// Legend: T tokens, D hidden, H query heads, K key/value heads, d head width.

namespace temper {

Attention::Attention(const std::string& name, const ModelConfig& config, const LayerConfig& layer,
                     const WeightOptions& options)
    : config_(config.attention),
      layer_(layer),
      qkv_(name + ".qkv",
           {{name + ".q", config_.num_heads * config_.head_dim},
            {name + ".k", config_.num_kv_heads * config_.head_dim},
            {name + ".v", config_.num_kv_heads * config_.head_dim}},
           config.hidden_size, config_.qkv_bias, options),
      output_(name + ".o", {{name + ".o", config.hidden_size}}, config_.num_heads * config_.head_dim,
              config_.output_bias, options) {
  if (config_.sinks) InitParameter(sinks_, name + ".sinks", {config_.num_heads}, options);
  if (config_.qk_norm == QkNorm::kNone) return;
  const auto width = [&](int64_t heads) {
    return config_.qk_norm == QkNorm::kFullWidth ? heads * config_.head_dim : config_.head_dim;
  };
  q_norm_ = std::make_unique<RmsNormLayer>(name + ".q_norm", width(config_.num_heads), config.norm, options);
  k_norm_ = std::make_unique<RmsNormLayer>(name + ".k_norm", width(config_.num_kv_heads), config.norm, options);
}

at::Tensor Attention::Prepare(const at::Tensor& x, int64_t heads, const RmsNormLayer* norm,
                              const BatchContext& context) const {
  const auto by_head = [&](const at::Tensor& x) { return x.unflatten(1, {heads, config_.head_dim}); };
  const ops::RopeTable* const rope = layer_.rope == kNoRope ? nullptr : &context.ropes[layer_.rope];
  const bool per_head = norm != nullptr && config_.qk_norm == QkNorm::kPerHead;
  if (per_head && rope != nullptr) return norm->ForwardRotated(by_head(x), *rope);
  at::Tensor x_THd = by_head(norm != nullptr && !per_head ? norm->Forward(x) : x);
  if (per_head) x_THd = norm->Forward(x_THd);
  return rope == nullptr ? x_THd : ops::ApplyRope(x_THd, *rope);
}

at::Tensor Attention::Forward(const ops::LinearInput& x_TD, const BatchContext& context) const {
  const int64_t heads = config_.num_heads, kv_heads = config_.num_kv_heads, width = config_.head_dim;
  const std::vector<at::Tensor> qkv = qkv_.Forward(x_TD).split({heads * width, kv_heads * width, kv_heads * width}, 1);
  const at::Tensor q_THd = Prepare(qkv[0], heads, q_norm_.get(), context);
  const at::Tensor k_TKd = Prepare(qkv[1], kv_heads, k_norm_.get(), context);
  // As a copy it does not keep the memory of q and k as they were before they were rotated, which nobody needs.
  const bool alone = layer_.rope != kNoRope && q_norm_ == nullptr;
  const at::Tensor v_TKd = (alone ? qkv[2].contiguous() : qkv[2]).unflatten(1, {kv_heads, width});
  const ops::ScoreConfig score{.scale = config_.scale, .softcap = config_.softcap, .window = layer_.window};
  const at::Tensor out_THd = ops::PackedAttention(q_THd, k_TKd, v_TKd, context.document_starts, score, sinks_.weight);
  return output_.Forward(out_THd.flatten(1));
}

void Attention::AppendParameters(std::vector<Parameter*>& parameters) {
  qkv_.AppendParameters(parameters);
  if (q_norm_ != nullptr) {
    q_norm_->AppendParameters(parameters);
    k_norm_->AppendParameters(parameters);
  }
  if (config_.sinks) parameters.push_back(&sinks_);
  output_.AppendParameters(parameters);
}

void Attention::AppendViews(std::vector<WeightView>& views) {
  qkv_.AppendViews(views);
  if (q_norm_ != nullptr) {
    q_norm_->AppendViews(views);
    k_norm_->AppendViews(views);
  }
  if (config_.sinks) views.push_back({sinks_.name, &sinks_, 0, config_.num_heads});
  output_.AppendViews(views);
}

}  // namespace temper
