// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "worker/model/linear_layer.h"
#include "worker/model/parameter.h"
#include "worker/model/parameter_init.h"
#include "worker/ops/linear.h"
#include "worker/ops/rms_norm.h"

namespace temper {

class RmsNormLayer {
 public:
  RmsNormLayer(std::string name, int64_t size, const ops::NormConfig& config, const WeightOptions& options)
      : name_(std::move(name)), config_(config), observer_(options.observer) {
    InitParameter(weight_, name_ + ".weight", {size}, options);
  }
  RmsNormLayer(const RmsNormLayer&) = delete;

  // Over the last dimension.
  at::Tensor Forward(const at::Tensor& x_TD) const {
    const at::Tensor y_TD = ops::RmsNorm(x_TD, weight_.weight, config_);
    if (observer_ != nullptr) observer_->OnModule(name_, x_TD, y_TD);
    return y_TD;
  }

  // x + update, and what Forward gives for it.
  std::pair<at::Tensor, at::Tensor> AddForward(const at::Tensor& x_TD, const at::Tensor& update_TD) const {
    std::pair<at::Tensor, at::Tensor> result = ops::AddRmsNorm(x_TD, update_TD, weight_.weight, config_);
    if (observer_ != nullptr) observer_->OnModule(name_, result.first, result.second);
    return result;
  }

  // Forward of x, and how a linear map can have it again: that is a pass over memory, and keeps nothing but x.
  ops::LinearInput ForwardInput(const at::Tensor& x_TD) const { return {Forward(x_TD), Remake(x_TD)}; }
  // Makes y again, of Forward or AddForward, from what it was the norm of.
  std::function<at::Tensor()> Remake(const at::Tensor& x_TD) const {
    return [x_TD = x_TD.detach(), weight = weight_.weight, config = config_] {
      return ops::RmsNorm(x_TD, weight, config);
    };
  }

  // Of heads, which are then rotated.
  at::Tensor ForwardRotated(const at::Tensor& x_THd, const ops::RopeTable& table) const {
    if (observer_ != nullptr) return ops::ApplyRope(Forward(x_THd), table);
    return ops::RmsNormRope(x_THd, weight_.weight, config_, table);
  }

  void AppendParameters(std::vector<Parameter*>& parameters) { parameters.push_back(&weight_); }
  void AppendViews(std::vector<WeightView>& views) {
    views.push_back({weight_.name, &weight_, 0, weight_.weight.size(0)});
  }

 private:
  std::string name_;
  Parameter weight_;
  ops::NormConfig config_;
  ModuleObserver* observer_;
};

}  // namespace temper
