// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/gated_activation.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "worker/ops/cpu/operators.h"
#include "worker/ops/cuda_dispatch.h"

namespace temper::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kClampedSharpness = 1.702;
constexpr double kClampedLimit = 7.0;

// The half that goes through the activation, and its derivative times `grad`.
at::Tensor Activate(const at::Tensor& gate, Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return at::silu(gate);
    case Activation::kGeluTanh:
      return at::gelu(gate, "tanh");
    case Activation::kGelu:
      return at::gelu(gate, "none");
    case Activation::kClampedSwiGlu: {
      const at::Tensor clamped = gate.clamp_max(kClampedLimit);
      return clamped * (clamped * kClampedSharpness).sigmoid_();
    }
  }
  TORCH_CHECK(false, "unknown activation");
}

at::Tensor ActivateBackward(const at::Tensor& grad, const at::Tensor& gate, Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return at::silu_backward(grad, gate);
    case Activation::kGeluTanh:
      return at::gelu_backward(grad, gate, "tanh");
    case Activation::kGelu:
      return at::gelu_backward(grad, gate, "none");
    case Activation::kClampedSwiGlu: {
      const at::Tensor clamped = gate.clamp_max(kClampedLimit);
      const at::Tensor sigmoid = (clamped * kClampedSharpness).sigmoid_();
      // d(g·σ(ag)) = σ·(1 + a·g·(1 − σ)); nothing comes through the clamp.
      at::Tensor slope = (clamped * kClampedSharpness).mul_(1 - sigmoid).add_(1).mul_(sigmoid);
      return slope.mul_(grad).mul_(gate.le(kClampedLimit));
    }
  }
  TORCH_CHECK(false, "unknown activation");
}

// What the other half contributes, and its derivative times `grad`.
at::Tensor Linear(const at::Tensor& up, Activation activation) {
  if (activation != Activation::kClampedSwiGlu) return up;
  return up.clamp(-kClampedLimit, kClampedLimit).add_(1);
}

void MaskClampedGradient(at::Tensor& grad_up, const at::Tensor& up, Activation activation) {
  if (activation == Activation::kClampedSwiGlu) grad_up.mul_(up.abs().le(kClampedLimit));
}

class GatedActivationFunction : public torch::autograd::Function<GatedActivationFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up_TF, int64_t activation_index) {
    const auto activation = static_cast<Activation>(activation_index);
    context->save_for_backward({gate_up_TF});
    context->saved_data["activation"] = activation_index;
    const std::vector<at::Tensor> parts = gate_up_TF.chunk(2, -1);
    return Activate(parts[0], activation).mul_(Linear(parts[1], activation));
  }
  static variable_list backward(AutogradContext* context, variable_list grad) {
    const auto activation = static_cast<Activation>(context->saved_data["activation"].toInt());
    const at::Tensor gate_up_TF = context->get_saved_variables()[0];
    const std::vector<at::Tensor> parts = gate_up_TF.chunk(2, -1);
    at::Tensor grad_gate_up_TF = at::empty_like(gate_up_TF);
    std::vector<at::Tensor> grads = grad_gate_up_TF.chunk(2, -1);
    grads[0].copy_(ActivateBackward(grad[0] * Linear(parts[1], activation), parts[0], activation));
    at::mul_out(grads[1], grad[0], Activate(parts[0], activation));
    MaskClampedGradient(grads[1], parts[1], activation);
    return {grad_gate_up_TF, at::Tensor()};
  }
};

}  // namespace

at::Tensor GatedActivation(const at::Tensor& gate_up_TF, Activation activation) {
  RETURN_IF_CUDA(gate_up_TF, GatedActivation(gate_up_TF, activation));
  if (cpu::CanGatedActivation(gate_up_TF, activation)) return cpu::GatedActivation(gate_up_TF, activation);
  return GatedActivationFunction::apply(gate_up_TF, static_cast<int64_t>(activation));
}

}  // namespace temper::ops
