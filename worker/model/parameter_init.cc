// SPDX-License-Identifier: Apache-2.0
#include "worker/model/parameter_init.h"

#include <ATen/ATen.h>

#include <utility>

namespace temper {

void InitParameter(Parameter& parameter, std::string name, std::vector<int64_t> shape, at::ScalarType dtype,
                   bool trainable) {
  parameter.name = std::move(name);
  parameter.decayed = shape.size() > 1;
  parameter.trainable = trainable;
  parameter.weight = at::zeros(shape, dtype);
  if (trainable && dtype != at::kFloat) parameter.low = at::zeros(shape, at::kShort);
  parameter.weight.requires_grad_(trainable);
}

}  // namespace temper
