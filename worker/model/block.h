// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/model/attention.h"
#include "worker/model/feed_forward.h"
#include "worker/model/model_config.h"
#include "worker/model/moe.h"
#include "worker/model/recompute.h"
#include "worker/model/rms_norm_layer.h"

namespace temper {

// One layer of the decoder: x + attention(x), then that + feed_forward(that), with norms before or after each half.
class Block {
 public:
  Block(int64_t layer, const ModelConfig& config, const WeightOptions& options);

  // [T, D] → [T, D], recorded by autograd.
  at::Tensor Forward(const at::Tensor& x_TD, const BatchContext& context, Routing* routing) const;

  // What is not kept from Forward for the backward pass. kNone when not called.
  void SetRecompute(Recompute recompute);

  std::vector<LinearLayer*> linear_layers();
  // Adds the adapters that sit in this layer, to `adapters` as well.
  void AddLora(const LoraConfig& config, std::vector<LoraAdapter*>& adapters);
  // As Transformer::MergeLora.
  void MergeLora();
  void AppendParameters(std::vector<Parameter*>& parameters);
  void AppendViews(std::vector<WeightView>& views);

  // Of all its linear maps, as LinearLayer's.
  double FlopsPerToken(bool input_needs_gradient);
  double ForwardFlopsPerToken(bool adapted);
  // Those of them that backward computes a second time.
  double RecomputedFlopsPerToken();
  Recompute recompute() const { return recompute_; }

 private:
  // Null where the config has none.
  struct Norms {
    std::unique_ptr<RmsNormLayer> before;
    std::unique_ptr<RmsNormLayer> after;
  };
  static Norms MakeNorms(const std::string& name, const ModelConfig& config, const WeightOptions& options);
  at::Tensor Scaled(const at::Tensor& update_TD) const;
  // Forward, as it is recorded where nothing, or attention alone, is computed again.
  at::Tensor Compute(const at::Tensor& x_TD, const BatchContext& context, Routing* routing) const;
  // What attention adds to x.
  at::Tensor Attend(const at::Tensor& x_TD, const BatchContext& context) const;
  void AppendAttentionParameters(std::vector<Parameter*>& parameters);

  double residual_scale_;
  Norms attention_norms_;
  Attention attention_;
  Norms feed_forward_norms_;
  // One of them.
  std::unique_ptr<FeedForward> feed_forward_;
  std::unique_ptr<MixtureOfExperts> experts_;
  Recompute recompute_ = Recompute::kNone;
  std::vector<Parameter*> recomputed_parameters_;  // which what is computed again reads
};

}  // namespace temper
