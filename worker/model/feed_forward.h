// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "worker/model/linear_layer.h"
#include "worker/model/model_config.h"

namespace temper {

// Gated feed-forward layer: down(activation(gate(x)) · up(x)).
class FeedForward {
 public:
  // `name` is "layers.N.mlp".
  FeedForward(const std::string& name, const ModelConfig& config, const WeightOptions& options);

  // [T, D] → [T, D], recorded by autograd.
  at::Tensor Forward(const ops::LinearInput& x_TD) const;

  std::vector<LinearLayer*> linear_layers() { return {&gate_up_, &down_}; }
  void AppendParameters(std::vector<Parameter*>& parameters);
  void AppendViews(std::vector<WeightView>& views);

 private:
  FeedForwardConfig config_;
  LinearLayer gate_up_;
  LinearLayer down_;
};

}  // namespace temper
