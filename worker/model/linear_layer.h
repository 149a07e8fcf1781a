// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/model/lora.h"
#include "worker/model/module_observer.h"
#include "worker/model/parameter.h"
#include "worker/model/parameter_init.h"

namespace temper {

// One matrix that computes one or more linear maps of the same input: q, k and v, or gate and up, are its parts.
class LinearLayer {
 public:
  struct Part {
    std::string name;  // "layers.0.attn.q"
    int64_t rows = 0;  // output features
  };

  LinearLayer(std::string name, std::vector<Part> parts, int64_t in_features, bool bias, const WeightOptions& options);
  LinearLayer(const LinearLayer&) = delete;

  // [T, in] → [T, sum of rows], recorded by autograd.
  at::Tensor Forward(const ops::LinearInput& x_TI) const;

  // Adds the adapters whose sites begin at one of the parts.
  void AddLora(const LoraConfig& config);

  // To be called once the weight is loaded.
  void InitLora();

  // Puts the adapters' updates into the weight, in fp32, and makes them zero: the same map without them.
  void MergeLora();

  void AppendParameters(std::vector<Parameter*>& parameters);
  void AppendViews(std::vector<WeightView>& views);
  void AppendAdapters(std::vector<LoraAdapter*>& adapters);

  // FLOPs a token of forward and backward: 2·in·out for each of the product, the input's gradient and the weight's.
  double FlopsPerToken(bool input_needs_gradient) const;
  // Of forward alone, without adapters where they are left away.
  double ForwardFlopsPerToken(bool adapted) const;

 private:
  void Observe(const at::Tensor& x_TI, const at::Tensor& y_TO) const;

  std::vector<Part> parts_;
  int64_t in_features_;
  Parameter weight_;
  Parameter bias_;  // its tensor is undefined without a bias
  std::vector<std::unique_ptr<LoraAdapter>> adapters_;
  ModuleObserver* observer_;
};

}  // namespace temper
