// SPDX-License-Identifier: Apache-2.0
#include "worker/model/gradient.h"

#include <ATen/ATen.h>

#include <cmath>

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
  std::vector<at::Tensor> norms;
  for (const Parameter* parameter : parameters) {
    if (!parameter->trainable || !parameter->gradient.defined()) continue;
    norms.push_back(at::linalg_vector_norm(parameter->gradient));
  }
  if (norms.empty()) return 0;
  const at::Tensor norms_P = at::stack(norms).to(at::kCPU, at::kDouble);  // a GPU is waited for once
  double sum_of_squares = 0;
  for (int64_t i = 0; i < norms_P.size(0); ++i) {
    const double norm = norms_P.const_data_ptr<double>()[i];
    sum_of_squares += norm * norm;
  }
  return std::sqrt(sum_of_squares);
}

double ClipScale(double norm, double max_norm) { return max_norm > 0 && norm > max_norm ? max_norm / norm : 1.0; }

}  // namespace temper
