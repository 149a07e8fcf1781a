// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/rms_norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "worker/ops/cpu/operators.h"
#include "worker/ops/cuda_dispatch.h"

namespace temper::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What each column is multiplied by, fp32.
at::Tensor Factor(const at::Tensor& weight_D, const NormConfig& config) {
  return config.weight_offset == 0 ? weight_D.to(at::kFloat) : weight_D.to(at::kFloat) + config.weight_offset;
}

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TD, const at::Tensor& weight_D,
                            const NormConfig& config) {
    const at::Tensor x = x_TD.to(at::kFloat);
    const at::Tensor scale_T1 = x.square().mean(-1, /*keepdim=*/true).add_(config.epsilon).rsqrt_();
    context->save_for_backward({x_TD, weight_D, scale_T1});
    context->saved_data["weight_offset"] = config.weight_offset;
    // As HF does it: the order matters to the last bit in bf16.
    const at::Tensor normed_TD = x * scale_T1;
    if (config.rounds_once || config.weight_offset != 0) {
      return (normed_TD * Factor(weight_D, config)).to(x_TD.scalar_type());
    }
    return normed_TD.to(x_TD.scalar_type()).mul_(weight_D);
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const NormConfig config{.weight_offset = context->saved_data["weight_offset"].toDouble()};
    const at::Tensor& weight_D = saved[1];
    const at::Tensor& scale_T1 = saved[2];
    const at::Tensor normed_TD = saved[0].to(at::kFloat) * scale_T1;
    const at::Tensor grad_TD = grad[0].to(at::kFloat);
    at::Tensor grad_x, grad_weight;
    if (context->needs_input_grad(0)) {
      // With n = x·s: dx = s · (g·w − n · mean(g·w·n)).
      at::Tensor g = grad_TD * Factor(weight_D, config);
      const at::Tensor mean_T1 = (g * normed_TD).mean(-1, /*keepdim=*/true);
      grad_x = g.sub_(normed_TD * mean_T1).mul_(scale_T1).to(saved[0].scalar_type());
    }
    if (context->needs_input_grad(1)) {
      const int64_t width = weight_D.size(0);
      grad_weight = (grad_TD * normed_TD).reshape({-1, width}).sum(0).to(weight_D.scalar_type());
    }
    return {grad_x, grad_weight, at::Tensor()};
  }
};

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight_D, const NormConfig& config) {
  RETURN_IF_CUDA(x, RmsNorm(x, weight_D, config));
  if (cpu::CanRmsNorm(x, weight_D)) return cpu::RmsNorm(x, weight_D, config);
  return RmsNormFunction::apply(x, weight_D, config);
}

std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& x, const at::Tensor& update, const at::Tensor& weight_D,
                                             const NormConfig& config) {
  if (cpu::CanRmsNorm(x, weight_D)) return cpu::AddRmsNorm(x, update, weight_D, config);
  const at::Tensor sum = x + update;
  return {sum, RmsNorm(sum, weight_D, config)};
}

at::Tensor RmsNormRope(const at::Tensor& x_THd, const at::Tensor& weight_d, const NormConfig& config,
                       const RopeTable& table) {
  if (cpu::CanRmsNormRope(x_THd, weight_d)) return cpu::RmsNormRope(x_THd, weight_d, config, table);
  return ApplyRope(RmsNorm(x_THd, weight_d, config), table);
}

}  // namespace temper::ops
