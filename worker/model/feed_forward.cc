// SPDX-License-Identifier: Apache-2.0
#include "worker/model/feed_forward.h"

#include "worker/ops/gated_activation.h"

namespace temper {

FeedForward::FeedForward(const std::string& name, const ModelConfig& config, const WeightOptions& options)
    : config_(config.feed_forward),
      gate_up_(name + ".gate_up",
               {{name + ".gate", config_.intermediate_size}, {name + ".up", config_.intermediate_size}},
               config.hidden_size, config_.bias, options),
      down_(name + ".down", {{name + ".down", config.hidden_size}}, config_.intermediate_size, config_.bias, options) {}

at::Tensor FeedForward::Forward(const ops::LinearInput& x_TD) const {
  const at::Tensor gate_up_TF = gate_up_.Forward(x_TD);
  const auto activate = [activation = config_.activation, gate_up_TF = gate_up_TF.detach()] {
    return ops::GatedActivation(gate_up_TF, activation);
  };
  return down_.Forward({ops::GatedActivation(gate_up_TF, config_.activation), activate});
}

void FeedForward::AppendParameters(std::vector<Parameter*>& parameters) {
  gate_up_.AppendParameters(parameters);
  down_.AppendParameters(parameters);
}

void FeedForward::AppendViews(std::vector<WeightView>& views) {
  gate_up_.AppendViews(views);
  down_.AppendViews(views);
}

}  // namespace temper
