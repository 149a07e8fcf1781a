// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <functional>
#include <optional>
#include <utility>

#include "worker/ops/backward_buffer.h"
#include "worker/ops/cpu/operators.h"
#include "worker/ops/matmul.h"

namespace temper::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RemadeInput : torch::CustomClassHolder {
  explicit RemadeInput(std::function<at::Tensor()> remake) : remake(std::move(remake)) {}
  std::function<at::Tensor()> remake;
};

// The arguments of autograd are x, weight, A and B of each update, bias; what backward writes to is none of them.
class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TI, const at::Tensor& weight_OI,
                            at::TensorList factors, const std::optional<at::Tensor>& bias_O,
                            const BackwardBuffer& grad_weight, const std::vector<LowRankUpdate>& updates,
                            const std::function<at::Tensor()>& remake) {
    at::Tensor y_TO = LinearMap(x_TI, weight_OI, bias_O.value_or(at::Tensor()));
    bool needed = weight_OI.requires_grad();
    for (const LowRankUpdate& update : updates) needed = needed || update.a_RI.requires_grad();
    variable_list saved = {needed && !remake ? x_TI : at::Tensor(), weight_OI};
    if (needed && remake) {
      context->saved_data["input"] = at::IValue::make_capsule(c10::make_intrusive<RemadeInput>(remake));
    }
    std::vector<double> scales;
    std::vector<int64_t> rows;
    std::vector<at::Tensor> buffers = {grad_weight.tensor};
    for (const LowRankUpdate& update : updates) {
      const at::Tensor inner_TR = MatMul(x_TI, update.a_RI.t()).mul_(update.scale);
      AddMatMul(SliceOf(y_TO, update.row, update.b_OR), inner_TR, update.b_OR.t());
      saved.insert(saved.end(), {update.a_RI, update.b_OR, inner_TR});
      scales.push_back(update.scale);
      rows.push_back(update.row);
      buffers.insert(buffers.end(), {update.grad_a_RI, update.grad_b_OR});
    }
    context->save_for_backward(saved);
    context->saved_data["scales"] = scales;
    context->saved_data["rows"] = rows;
    context->saved_data["buffers"] = buffers;
    context->saved_data["factors"] = static_cast<int64_t>(factors.size());
    context->saved_data["has_bias"] = bias_O.has_value();
    return y_TO;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &grad_TO = grad[0], &weight_OI = saved[1];
    const at::Tensor x_TI = Input(context, saved[0]);
    const std::vector<double> scales = context->saved_data["scales"].toDoubleVector();
    const std::vector<int64_t> rows = context->saved_data["rows"].toIntVector();
    const std::vector<at::Tensor> buffers = context->saved_data["buffers"].toTensorVector();
    const auto factors = static_cast<size_t>(context->saved_data["factors"].toInt());
    variable_list grads(2 + factors + 4);  // the last three stand for what is no variable
    const auto wanted = [&](size_t input) { return context->needs_input_grad(input); };
    if (wanted(0)) grads[0] = MatMul(grad_TO, weight_OI);
    if (wanted(1)) grads[1] = WeightGradient(grad_TO, x_TI, buffers[0]);
    if (context->saved_data["has_bias"].toBool() && wanted(2 + factors)) grads[2 + factors] = grad_TO.sum(0);
    for (size_t i = 0; i < scales.size(); ++i) {
      const at::Tensor &a_RI = saved[2 + 3 * i], &b_OR = saved[3 + 3 * i], &inner_TR = saved[4 + 3 * i];
      const at::Tensor grad_update_TO = SliceOf(grad_TO, rows[i], b_OR);
      const size_t a = 2 + 2 * i, b = a + 1;
      if (wanted(b)) grads[b] = WeightGradient(grad_update_TO, inner_TR, buffers[b - 1]);
      if (!wanted(0) && !wanted(a)) continue;
      const at::Tensor grad_inner_TR = MatMul(grad_update_TO, b_OR).mul_(scales[i]);
      if (wanted(a)) grads[a] = WeightGradient(grad_inner_TR, x_TI, buffers[a - 1]);
      if (wanted(0)) AddMatMul(grads[0], grad_inner_TR, a_RI);
    }
    return grads;
  }

 private:
  // Undefined where no gradient needs it.
  static at::Tensor Input(AutogradContext* context, const at::Tensor& kept_TI) {
    const auto input = context->saved_data.find("input");
    if (input == context->saved_data.end()) return kept_TI;
    const auto remade = c10::static_intrusive_pointer_cast<RemadeInput>(input->second.toCapsule());
    context->saved_data.erase("input");  // autograd frees the rest, but not this: what it is made of can go
    return remade->remake();
  }

  // The columns that an update with this factor is for.
  static at::Tensor SliceOf(const at::Tensor& y_TO, int64_t row, const at::Tensor& b_OR) {
    return y_TO.narrow(1, row, b_OR.size(0));
  }

  // Undefined where it was added to a buffer.
  static at::Tensor WeightGradient(const at::Tensor& grad_TO, const at::Tensor& x_TI, const at::Tensor& buffer_OI) {
    if (!buffer_OI.defined()) return MatMul(grad_TO.t(), x_TI);
    AddWeightGradient(grad_TO, x_TI, buffer_OI);
    return {};
  }
};

}  // namespace

at::Tensor Linear(const LinearInput& x_TI, const at::Tensor& weight_OI, const at::Tensor& bias_O,
                  const at::Tensor& grad_weight_OI, const std::vector<LowRankUpdate>& updates) {
  std::vector<at::Tensor> factors;
  for (const LowRankUpdate& update : updates) factors.insert(factors.end(), {update.a_RI, update.b_OR});
  return LinearFunction::apply(x_TI.value, weight_OI, at::TensorList(factors), IfDefined(bias_O),
                               BackwardBuffer{grad_weight_OI}, updates, x_TI.remake);
}

void AddWeightGradient(const at::Tensor& grad_TO, const at::Tensor& x_TI, at::Tensor to_OI) {
  const at::NoGradGuard no_grad;
  if (grad_TO.scalar_type() == at::kFloat || cpu::CanMultiply(grad_TO.t(), x_TI, to_OI)) {
    AddMatMul(to_OI, grad_TO.t(), x_TI);
  } else if (grad_TO.is_cuda()) {
    at::addmm_out(to_OI, to_OI, grad_TO.t(), x_TI, at::kFloat);
  } else {
    to_OI.add_(at::mm(grad_TO.t(), x_TI));
  }
}

}  // namespace temper::ops
