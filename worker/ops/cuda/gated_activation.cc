// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "worker/ops/cuda/gated_activation_kernel.h"
#include "worker/ops/cuda/launch.h"
#include "worker/ops/cuda/operators.h"

namespace temper::ops::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class GatedActivationFunction : public torch::autograd::Function<GatedActivationFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up_any, int64_t activation) {
    const at::Tensor gate_up_TF = gate_up_any.contiguous();
    const int64_t rows = gate_up_TF.size(0), width = gate_up_TF.size(1) / 2;
    at::Tensor out = at::empty({rows, width}, gate_up_TF.options());
    Launch(out, [&](cudaStream_t stream) {
      GatedActivationForward(static_cast<Activation>(activation), ElementTypeOf(out), rows, width,
                             gate_up_TF.const_data_ptr(), out.mutable_data_ptr(), stream);
    });
    context->save_for_backward({gate_up_TF});
    context->saved_data["activation"] = activation;
    return out;
  }
  static variable_list backward(AutogradContext* context, variable_list grad) {
    const auto activation = static_cast<Activation>(context->saved_data["activation"].toInt());
    const at::Tensor gate_up_TF = context->get_saved_variables()[0];
    const at::Tensor grad_out = grad[0].contiguous();
    at::Tensor grad_gate_up_TF = at::empty_like(gate_up_TF);
    Launch(grad_out, [&](cudaStream_t stream) {
      GatedActivationBackward(activation, ElementTypeOf(grad_out), grad_out.size(0), grad_out.size(1),
                              gate_up_TF.const_data_ptr(), grad_out.const_data_ptr(),
                              grad_gate_up_TF.mutable_data_ptr(), stream);
    });
    return {grad_gate_up_TF, at::Tensor()};
  }
};

}  // namespace

at::Tensor GatedActivation(const at::Tensor& gate_up_TF, Activation activation) {
  return GatedActivationFunction::apply(gate_up_TF, static_cast<int64_t>(activation));
}

}  // namespace temper::ops::cuda
