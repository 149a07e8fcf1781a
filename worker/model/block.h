// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "worker/model/attention.h"
#include "worker/model/feed_forward.h"
#include "worker/model/model_config.h"
#include "worker/model/rms_norm_layer.h"

namespace temper {

// One layer of the decoder: x + attention(norm(x)), then that + feed_forward(norm(that)).
class Block {
 public:
  Block(int64_t layer, const ModelConfig& config, const WeightOptions& options);

  // [T, D] → [T, D], recorded by autograd.
  at::Tensor Forward(const at::Tensor& x_TD, const BatchContext& context) const;

  std::vector<LinearLayer*> linear_layers();
  void AppendParameters(std::vector<Parameter*>& parameters);
  void AppendViews(std::vector<WeightView>& views);

 private:
  RmsNormLayer attention_norm_;
  Attention attention_;
  RmsNormLayer feed_forward_norm_;
  FeedForward feed_forward_;
};

}  // namespace temper
