// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/model/linear_layer.h"
#include "worker/model/model_config.h"
#include "worker/model/rms_norm_layer.h"
#include "worker/model/trainable_model.h"

namespace temper {

// Self-attention: q, k, v projections, norms of queries and keys, rotary positions, attention inside each document,
// output projection. Each part is there if the config says so.
class Attention {
 public:
  // `name` is "layers.N.attn".
  Attention(const std::string& name, const ModelConfig& config, const LayerConfig& layer, const WeightOptions& options);

  // [T, D] → [T, D], recorded by autograd.
  at::Tensor Forward(const ops::LinearInput& x_TD, const BatchContext& context) const;

  std::vector<LinearLayer*> linear_layers() { return {&qkv_, &output_}; }
  void AppendParameters(std::vector<Parameter*>& parameters);
  void AppendViews(std::vector<WeightView>& views);

 private:
  // Queries or keys, normed and rotated: [T, heads · d] → [T, heads, d].
  at::Tensor Prepare(const at::Tensor& x, int64_t heads, const RmsNormLayer* norm, const BatchContext& context) const;

  AttentionConfig config_;
  LayerConfig layer_;
  LinearLayer qkv_;
  std::unique_ptr<RmsNormLayer> q_norm_;  // null without
  std::unique_ptr<RmsNormLayer> k_norm_;
  Parameter sinks_;  // its tensor is undefined without
  LinearLayer output_;
};

}  // namespace temper
