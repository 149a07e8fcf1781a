// SPDX-License-Identifier: Apache-2.0
#include "worker/model/block.h"

#include <ATen/ATen.h>

#include <utility>

namespace temper {
namespace {

std::string LayerName(int64_t layer) { return "layers." + std::to_string(layer); }

at::Tensor Normed(const std::unique_ptr<RmsNormLayer>& norm, const at::Tensor& x_TD) {
  return norm == nullptr ? x_TD : norm->Forward(x_TD);
}

ops::LinearInput NormedInput(const std::unique_ptr<RmsNormLayer>& norm, const at::Tensor& x_TD) {
  return norm == nullptr ? x_TD : norm->ForwardInput(x_TD);
}

// x + update, and that normed.
std::pair<at::Tensor, ops::LinearInput> AddNormed(const std::unique_ptr<RmsNormLayer>& norm, const at::Tensor& x_TD,
                                                  const at::Tensor& update_TD) {
  if (norm == nullptr) {
    const at::Tensor sum_TD = x_TD + update_TD;
    return {sum_TD, sum_TD};
  }
  const auto [sum_TD, normed_TD] = norm->AddForward(x_TD, update_TD);
  return {sum_TD, {normed_TD, norm->Remake(sum_TD)}};
}

}  // namespace

Block::Norms Block::MakeNorms(const std::string& name, const ModelConfig& config, const WeightOptions& options) {
  const auto make = [&](bool present, const char* suffix) {
    return present ? std::make_unique<RmsNormLayer>(name + suffix, config.hidden_size, config.norm, options) : nullptr;
  };
  return {make(config.pre_norm, "_norm"), make(config.post_norm, "_post_norm")};
}

Block::Block(int64_t layer, const ModelConfig& config, const WeightOptions& options)
    : residual_scale_(config.residual_scale),
      attention_norms_(MakeNorms(LayerName(layer) + ".attn", config, options)),
      attention_(LayerName(layer) + ".attn", config, config.layer(layer), options),
      feed_forward_norms_(MakeNorms(LayerName(layer) + ".mlp", config, options)) {
  const std::string name = LayerName(layer) + ".mlp";
  if (config.layer(layer).experts) {
    experts_ = std::make_unique<MixtureOfExperts>(name, config, options);
  } else {
    feed_forward_ = std::make_unique<FeedForward>(name, config, options);
  }
}

at::Tensor Block::Scaled(const at::Tensor& update_TD) const {
  return residual_scale_ == 1.0 ? update_TD : update_TD * residual_scale_;
}

void Block::SetRecompute(Recompute recompute) {
  recompute_ = recompute;
  recomputed_parameters_.clear();
  if (recompute == Recompute::kAttention) AppendAttentionParameters(recomputed_parameters_);
  if (recompute == Recompute::kBlock) AppendParameters(recomputed_parameters_);
}

at::Tensor Block::Forward(const at::Tensor& x_TD, const BatchContext& context, Routing* routing) const {
  if (recompute_ != Recompute::kBlock || !at::GradMode::is_enabled()) return Compute(x_TD, context, routing);
  const bool routed = routing != nullptr;
  const auto compute = [this, context, routed](const at::Tensor& x_TD) {
    Routing again;
    std::vector<at::Tensor> results = {Compute(x_TD, context, routed ? &again : nullptr)};
    if (again.tokens_E.defined()) results.insert(results.end(), {again.probabilities_TE, again.tokens_E});
    return results;
  };
  const std::vector<at::Tensor> results = RecomputeInBackward(compute, x_TD, recomputed_parameters_);
  if (results.size() > 1) *routing = {results[1], results[2]};
  return results[0];
}

at::Tensor Block::Compute(const at::Tensor& x_TD, const BatchContext& context, Routing* routing) const {
  const Norms& norms = feed_forward_norms_;
  const auto [h_TD, normed_TD] = AddNormed(norms.before, x_TD, Attend(x_TD, context));
  const at::Tensor fed_TD = experts_ ? experts_->Forward(normed_TD.value, routing) : feed_forward_->Forward(normed_TD);
  return h_TD + Scaled(Normed(norms.after, fed_TD));
}

at::Tensor Block::Attend(const at::Tensor& x_TD, const BatchContext& context) const {
  const auto attend = [this, context](const at::Tensor& x_TD) {
    const at::Tensor attended_TD = attention_.Forward(NormedInput(attention_norms_.before, x_TD), context);
    return std::vector<at::Tensor>{Scaled(Normed(attention_norms_.after, attended_TD))};
  };
  if (recompute_ != Recompute::kAttention || !at::GradMode::is_enabled()) return attend(x_TD)[0];
  return RecomputeInBackward(attend, x_TD, recomputed_parameters_)[0];
}

std::vector<LinearLayer*> Block::linear_layers() {
  std::vector<LinearLayer*> layers = attention_.linear_layers();
  if (feed_forward_) {
    for (LinearLayer* layer : feed_forward_->linear_layers()) layers.push_back(layer);
  }
  return layers;
}

void Block::AddLora(const LoraConfig& config, std::vector<LoraAdapter*>& adapters) {
  for (LinearLayer* linear : linear_layers()) {
    linear->AddLora(config);
    linear->AppendAdapters(adapters);
  }
  if (experts_) experts_->AddLora(config, adapters);
}

void Block::MergeLora() {
  for (LinearLayer* linear : linear_layers()) linear->MergeLora();
  if (experts_) experts_->MergeLora();
}

double Block::FlopsPerToken(bool input_needs_gradient) {
  double flops = experts_ ? experts_->FlopsPerToken() : 0.0;
  for (const LinearLayer* linear : linear_layers()) {
    flops += linear->FlopsPerToken(input_needs_gradient);
    input_needs_gradient = true;  // q, k and v alone see the block's own input
  }
  return flops;
}

double Block::ForwardFlopsPerToken(bool adapted) {
  double flops = experts_ ? experts_->ForwardFlopsPerToken(adapted) : 0.0;
  for (const LinearLayer* linear : linear_layers()) flops += linear->ForwardFlopsPerToken(adapted);
  return flops;
}

double Block::RecomputedFlopsPerToken() {
  if (recompute_ == Recompute::kNone) return 0;
  if (recompute_ == Recompute::kBlock) return ForwardFlopsPerToken(/*adapted=*/true);
  double flops = 0;
  for (const LinearLayer* linear : attention_.linear_layers()) flops += linear->ForwardFlopsPerToken(/*adapted=*/true);
  return flops;
}

void Block::AppendAttentionParameters(std::vector<Parameter*>& parameters) {
  if (attention_norms_.before) attention_norms_.before->AppendParameters(parameters);
  attention_.AppendParameters(parameters);
  if (attention_norms_.after) attention_norms_.after->AppendParameters(parameters);
}

void Block::AppendParameters(std::vector<Parameter*>& parameters) {
  AppendAttentionParameters(parameters);
  if (feed_forward_norms_.before) feed_forward_norms_.before->AppendParameters(parameters);
  if (feed_forward_) feed_forward_->AppendParameters(parameters);
  if (experts_) experts_->AppendParameters(parameters);
  if (feed_forward_norms_.after) feed_forward_norms_.after->AppendParameters(parameters);
}

void Block::AppendViews(std::vector<WeightView>& views) {
  if (attention_norms_.before) attention_norms_.before->AppendViews(views);
  attention_.AppendViews(views);
  if (attention_norms_.after) attention_norms_.after->AppendViews(views);
  if (feed_forward_norms_.before) feed_forward_norms_.before->AppendViews(views);
  if (feed_forward_) feed_forward_->AppendViews(views);
  if (experts_) experts_->AppendViews(views);
  if (feed_forward_norms_.after) feed_forward_norms_.after->AppendViews(views);
}

}  // namespace temper
