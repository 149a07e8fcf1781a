// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "worker/model/linear_layer.h"
#include "worker/model/parameter.h"
#include "worker/model/parameter_init.h"
#include "worker/ops/rms_norm.h"

namespace temper {

class RmsNormLayer {
 public:
  RmsNormLayer(std::string name, int64_t size, const ops::NormConfig& config, const WeightOptions& options)
      : config_(config) {
    InitParameter(weight_, name + ".weight", {size}, options.dtype, options.trainable);
  }
  RmsNormLayer(const RmsNormLayer&) = delete;

  // Over the last dimension.
  at::Tensor Forward(const at::Tensor& x_TD) const { return ops::RmsNorm(x_TD, weight_.weight, config_); }

  void AppendParameters(std::vector<Parameter*>& parameters) { parameters.push_back(&weight_); }
  void AppendViews(std::vector<WeightView>& views) {
    views.push_back({weight_.name, &weight_, 0, weight_.weight.size(0)});
  }

 private:
  Parameter weight_;
  ops::NormConfig config_;
};

}  // namespace temper
