// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/gated_activation.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "worker/ops/cpu/gated_activation_kernel.h"
#include "worker/ops/cpu/instruction_set.h"
#include "worker/ops/cpu/operators.h"

namespace temper::ops::cpu {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Elements that are worth a thread of their own.
constexpr int64_t kGrain = 1 << 13;

const GatedActivationKernels& Chosen() { return Choose(avx2::kGatedActivation, avx512::kGatedActivation); }

GatedRows RowsOf(const at::Tensor& gate_up_TF, Activation activation) {
  GatedRows rows;
  rows.bf16 = gate_up_TF.scalar_type() == at::kBFloat16;
  rows.width = gate_up_TF.size(-1) / 2;
  rows.activation = activation;
  rows.gate_up = gate_up_TF.const_data_ptr();
  return rows;
}

template <typename Run>
void ForEachRow(const at::Tensor& gate_up_TF, const Run& run) {
  const int64_t columns = gate_up_TF.size(-1);
  at::parallel_for(0, gate_up_TF.numel() / columns, std::max<int64_t>(1, kGrain / columns), run);
}

class GatedActivationFunction : public torch::autograd::Function<GatedActivationFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& any_TF, int64_t activation) {
    const at::Tensor gate_up_TF = any_TF.contiguous();
    std::vector<int64_t> shape = gate_up_TF.sizes().vec();
    shape.back() /= 2;
    at::Tensor y_TF = at::empty(shape, gate_up_TF.options());
    GatedRows rows = RowsOf(gate_up_TF, static_cast<Activation>(activation));
    rows.y = y_TF.mutable_data_ptr();
    ForEachRow(gate_up_TF, [&](int64_t begin, int64_t end) { Chosen().forward(rows, begin, end); });
    context->save_for_backward({gate_up_TF});
    context->saved_data["activation"] = activation;
    return y_TF;
  }
  static variable_list backward(AutogradContext* context, variable_list grad) {
    const at::Tensor gate_up_TF = context->get_saved_variables()[0];
    const at::Tensor grad_TF = grad[0].contiguous();
    at::Tensor grad_gate_up_TF = at::empty(gate_up_TF.sizes(), gate_up_TF.options());
    GatedRows rows = RowsOf(gate_up_TF, static_cast<Activation>(context->saved_data["activation"].toInt()));
    rows.grad_y = grad_TF.const_data_ptr();
    rows.grad_gate_up = grad_gate_up_TF.mutable_data_ptr();
    ForEachRow(gate_up_TF, [&](int64_t begin, int64_t end) { Chosen().backward(rows, begin, end); });
    return {grad_gate_up_TF, at::Tensor()};
  }
};

}  // namespace

bool CanGatedActivation(const at::Tensor& gate_up_TF, Activation activation) {
  const auto dtype = gate_up_TF.scalar_type();
  return Kernels() != InstructionSet::kNone && gate_up_TF.is_cpu() && activation != Activation::kGelu &&
         gate_up_TF.numel() > 0 && (dtype == at::kFloat || dtype == at::kBFloat16);
}

at::Tensor GatedActivation(const at::Tensor& gate_up_TF, Activation activation) {
  return GatedActivationFunction::apply(gate_up_TF, static_cast<int64_t>(activation));
}

}  // namespace temper::ops::cpu
