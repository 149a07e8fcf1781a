// SPDX-License-Identifier: Apache-2.0
#include "worker/model/gradient.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numeric>

#include "worker/ops/sum_of_squares.h"

namespace temper {

at::Tensor GradientBuffer(Parameter& parameter) {
  if (!parameter.gradient.defined()) {
    parameter.gradient = at::zeros(parameter.weight.sizes(), parameter.weight.options().dtype(at::kFloat));
  }
  return parameter.gradient;
}

void AccumulateGradient(Parameter& parameter, const at::Tensor& gradient) {
  if (!gradient.defined()) return;
  const at::NoGradGuard no_grad;
  GradientBuffer(parameter).add_(gradient);
}

void ZeroGradients(const std::vector<Parameter*>& parameters) {
  for (Parameter* parameter : parameters) {
    if (parameter->gradient.defined()) parameter->gradient.zero_();
  }
}

void ZeroFrozenGradients(const std::vector<Parameter*>& parameters) {
  for (Parameter* parameter : parameters) {
    if (!parameter->gradient.defined()) continue;
    for (const RowRange& frozen : parameter->frozen_rows) {
      parameter->gradient.narrow(0, frozen.row, frozen.rows).zero_();
    }
  }
}

double GlobalGradientNorm(const std::vector<Parameter*>& parameters) {
  std::vector<at::Tensor> sums;
  for (const Parameter* parameter : parameters) {
    if (!parameter->trainable || !parameter->gradient.defined()) continue;
    sums.push_back(ops::SumOfSquares(parameter->gradient));
  }
  if (sums.empty()) return 0;
  const at::Tensor sums_P = at::stack(sums).cpu();  // a GPU is waited for once
  const double* const first = sums_P.const_data_ptr<double>();
  return std::sqrt(std::accumulate(first, first + sums_P.numel(), 0.0));
}

double ClipScale(double norm, double max_norm) { return max_norm > 0 && norm > max_norm ? max_norm / norm : 1.0; }

}  // namespace temper
