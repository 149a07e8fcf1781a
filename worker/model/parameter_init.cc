// SPDX-License-Identifier: Apache-2.0
#include "worker/model/parameter_init.h"

#include <ATen/ATen.h>

#include <utility>

namespace temper {

void InitParameter(Parameter& parameter, std::string name, std::vector<int64_t> shape, const WeightOptions& options) {
  const at::TensorOptions device(options.device);
  parameter.name = std::move(name);
  parameter.decayed = shape.size() > 1;
  parameter.trainable = options.trainable;
  parameter.weight = at::zeros(shape, device.dtype(options.dtype));
  if (options.trainable && options.dtype != at::kFloat) parameter.low = at::zeros(shape, device.dtype(at::kShort));
  parameter.weight.requires_grad_(options.trainable);
}

}  // namespace temper
