// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "worker/ops/cpu/operators.h"

namespace temper::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// An undefined tensor is not an absent one to ATen and to autograd::Function.
std::optional<at::Tensor> IfDefined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

class AccumulatingLinear : public torch::autograd::Function<AccumulatingLinear> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TI, const at::Tensor& weight_OI,
                            const std::optional<at::Tensor>& bias_O, const at::Tensor& grad_weight_OI) {
    context->save_for_backward({x_TI, weight_OI});
    // Not a variable of the graph: backward writes to it.
    context->saved_data["grad_weight"] = grad_weight_OI;
    return at::linear(x_TI, weight_OI, bias_O);
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x_TI = saved[0], &weight_OI = saved[1];
    at::Tensor grad_x, grad_bias;
    if (context->needs_input_grad(0)) grad_x = at::mm(grad[0], weight_OI);
    if (context->needs_input_grad(1)) {
      AddWeightGradient(grad[0], x_TI, context->saved_data["grad_weight"].toTensor());
    }
    if (context->needs_input_grad(2)) grad_bias = grad[0].sum(0);
    return {grad_x, at::Tensor(), grad_bias, at::Tensor()};
  }
};

}  // namespace

at::Tensor Linear(const at::Tensor& x_TI, const at::Tensor& weight_OI, const at::Tensor& bias_O,
                  const at::Tensor& grad_weight_OI) {
  if (!grad_weight_OI.defined()) return at::linear(x_TI, weight_OI, IfDefined(bias_O));
  return AccumulatingLinear::apply(x_TI, weight_OI, IfDefined(bias_O), grad_weight_OI);
}

void AddWeightGradient(const at::Tensor& grad_TO, const at::Tensor& x_TI, at::Tensor to_OI) {
  const at::NoGradGuard no_grad;
  if (cpu::CanAddWeightGradient(grad_TO, x_TI, to_OI)) return cpu::AddWeightGradient(grad_TO, x_TI, to_OI);
  if (grad_TO.scalar_type() == at::kFloat) {
    to_OI.addmm_(grad_TO.t(), x_TI);
  } else {
    to_OI.add_(at::mm(grad_TO.t(), x_TI));
  }
}

}  // namespace temper::ops
