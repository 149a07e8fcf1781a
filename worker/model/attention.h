// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "worker/model/linear_layer.h"
#include "worker/model/model_config.h"
#include "worker/model/trainable_model.h"

namespace temper {

// Self-attention: q, k, v projections, rotary positions, attention inside each document, output projection.
class Attention {
 public:
  // `name` is "layers.N.attn".
  Attention(const std::string& name, const ModelConfig& config, const WeightOptions& options);

  // [T, D] → [T, D], recorded by autograd.
  at::Tensor Forward(const at::Tensor& x_TD, const BatchContext& context) const;

  LinearLayer& qkv() { return qkv_; }
  LinearLayer& output() { return output_; }

 private:
  AttentionConfig config_;
  LinearLayer qkv_;
  LinearLayer output_;
};

}  // namespace temper
