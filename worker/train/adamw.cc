// SPDX-License-Identifier: Apache-2.0
#include "worker/train/adamw.h"

#include <ATen/ATen.h>

#include "worker/ops/adamw.h"

namespace temper {

AdamW::AdamW(const std::vector<Parameter*>& parameters, const AdamWOptions& options) : options_(options) {
  for (Parameter* parameter : parameters) {
    if (!parameter->trainable) continue;
    const auto fp32 = parameter->weight.options().dtype(at::kFloat).requires_grad(false);
    moments_.push_back(
        {parameter, at::zeros(parameter->weight.sizes(), fp32), at::zeros(parameter->weight.sizes(), fp32)});
  }
}

void AdamW::Step(double learning_rate, double gradient_scale) {
  const at::NoGradGuard no_grad;
  ++steps_;
  for (Moments& state : moments_) {
    Parameter& parameter = *state.parameter;
    if (!parameter.gradient.defined()) continue;
    const ops::AdamWCoefficients coefficients = {
        .learning_rate = learning_rate,
        .beta1 = options_.beta1,
        .beta2 = options_.beta2,
        .epsilon = options_.epsilon,
        .weight_decay = parameter.decayed ? options_.weight_decay : 0.0,
        .step = steps_,
        .gradient_scale = gradient_scale,
    };
    for (const RowRange& range : parameter.trainable_rows()) {
      const auto rows = [&range](const at::Tensor& whole) { return whole.narrow(0, range.row, range.rows); };
      const at::Tensor gradient = rows(parameter.gradient), first = rows(state.first), second = rows(state.second);
      if (!parameter.low.defined()) {
        ops::AdamWUpdate(rows(parameter.weight), gradient, first, second, coefficients);
        continue;
      }
      ops::AdamWUpdateSplit(rows(parameter.weight.detach()), rows(parameter.low), gradient, first, second,
                            coefficients);
    }
  }
}

}  // namespace temper
