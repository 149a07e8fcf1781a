// SPDX-License-Identifier: Apache-2.0
#include "worker/model/block.h"

#include <ATen/ATen.h>

namespace temper {
namespace {

std::string LayerName(int64_t layer) { return "layers." + std::to_string(layer); }

}  // namespace

Block::Block(int64_t layer, const ModelConfig& config, const WeightOptions& options)
    : attention_norm_(LayerName(layer) + ".attn_norm", config.hidden_size, config.norm_epsilon, options),
      attention_(LayerName(layer) + ".attn", config, options),
      feed_forward_norm_(LayerName(layer) + ".mlp_norm", config.hidden_size, config.norm_epsilon, options),
      feed_forward_(LayerName(layer) + ".mlp", config, options) {}

at::Tensor Block::Forward(const at::Tensor& x_TD, const BatchContext& context) const {
  const at::Tensor h_TD = x_TD + attention_.Forward(attention_norm_.Forward(x_TD), context);
  return h_TD + feed_forward_.Forward(feed_forward_norm_.Forward(h_TD));
}

std::vector<LinearLayer*> Block::linear_layers() {
  return {&attention_.qkv(), &attention_.output(), &feed_forward_.gate_up(), &feed_forward_.down()};
}

void Block::AppendParameters(std::vector<Parameter*>& parameters) {
  attention_norm_.AppendParameters(parameters);
  attention_.qkv().AppendParameters(parameters);
  attention_.output().AppendParameters(parameters);
  feed_forward_norm_.AppendParameters(parameters);
  feed_forward_.gate_up().AppendParameters(parameters);
  feed_forward_.down().AppendParameters(parameters);
}

void Block::AppendViews(std::vector<WeightView>& views) {
  attention_norm_.AppendViews(views);
  attention_.qkv().AppendViews(views);
  attention_.output().AppendViews(views);
  feed_forward_norm_.AppendViews(views);
  feed_forward_.gate_up().AppendViews(views);
  feed_forward_.down().AppendViews(views);
}

}  // namespace temper
