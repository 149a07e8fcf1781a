// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "worker/model/linear_layer.h"
#include "worker/model/lora.h"
#include "worker/model/model_config.h"
#include "worker/model/trainable_model.h"

namespace temper {

// Mixture of experts (Shazeer et al. 2017): a router gives each token to top_k of the experts, gated feed-forward
// layers of one shape, and adds up what they return, weighted by its scores.
class MixtureOfExperts {
 public:
  // `name` is "layers.N.mlp".
  MixtureOfExperts(const std::string& name, const ModelConfig& config, const WeightOptions& options);

  // [T, D] → [T, D], recorded by autograd. Where the model is trained to use its experts evenly, `routing` gets what
  // the loss for that needs.
  at::Tensor Forward(const at::Tensor& x_TD, Routing* routing) const;

  // As Block's. Sites: "layers.N.mlp.experts.gate_up" and "….down".
  void AddLora(const LoraConfig& config, std::vector<LoraAdapter*>& adapters);
  void MergeLora();

  void AppendParameters(std::vector<Parameter*>& parameters);
  void AppendViews(std::vector<WeightView>& views);

  // As LinearLayer's: of the router and of the experts that a token goes through.
  double FlopsPerToken() const;
  double ForwardFlopsPerToken(bool adapted) const;

 private:
  // All experts' matrices of one kind, one below the other: expert e has rows [e · out, (e + 1) · out).
  struct Experts {
    Parameter weight;
    Parameter bias;  // its tensor is undefined without a bias
    int64_t out = 0;
    std::unique_ptr<LoraAdapter> adapter;  // null without

    at::Tensor Forward(const at::Tensor& x_SI, const std::vector<int64_t>& starts) const;
  };
  // A token's choice.
  struct Choice {
    at::Tensor weights_Tk;
    at::Tensor experts_Tk;
  };

  Experts MakeExperts(const std::string& name, int64_t out, int64_t in, const WeightOptions& options) const;
  double FlopsOf(const Experts& experts, bool forward_alone, bool adapted) const;
  static double FlopsOf(const Parameter& parameter, bool forward_alone);
  Choice Route(const at::Tensor& x_TD, Routing* routing) const;

  std::string name_;
  MoeConfig config_;
  ModuleObserver* observer_;
  Parameter router_weight_;
  Parameter router_bias_;
  Experts gate_up_;
  Experts down_;
};

}  // namespace temper
