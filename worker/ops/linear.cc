// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
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

// All updates of a map as one, of the sum of their ranks, S: what each takes of memory's time is passes over x, y and
// their gradients, which are the same for one update and for three.
at::Tensor StackedA(const variable_list& a_RI) { return a_RI.size() == 1 ? a_RI[0] : at::cat(a_RI); }

at::Tensor StackedB(const variable_list& b_OR, const std::vector<int64_t>& rows, int64_t outputs) {
  if (b_OR.size() == 1 && b_OR[0].size(0) == outputs) return b_OR[0];
  int64_t ranks = 0;
  for (const at::Tensor& b : b_OR) ranks += b.size(1);
  at::Tensor b_OS = at::zeros({outputs, ranks}, b_OR[0].options());
  int64_t column = 0;
  for (size_t i = 0; i < b_OR.size(); ++i) {
    b_OS.narrow(0, rows[i], b_OR[i].size(0)).narrow(1, column, b_OR[i].size(1)).copy_(b_OR[i]);
    column += b_OR[i].size(1);
  }
  return b_OS;
}

// The columns of each update.
std::vector<at::Tensor> ColumnsOf(const at::Tensor& inner_TS, const variable_list& a_RI) {
  std::vector<int64_t> ranks;
  for (const at::Tensor& a : a_RI) ranks.push_back(a.size(0));
  return inner_TS.split_with_sizes(ranks, 1);
}

// x · Aᵀ, or the gradient of that, by each update's scale.
at::Tensor ScaledInner(const at::Tensor& x_TI, const at::Tensor& a_IS, const variable_list& a_RI,
                       const std::vector<double>& scales) {
  at::Tensor inner_TS = MatMul(x_TI, a_IS);
  const bool same = std::equal(scales.begin() + 1, scales.end(), scales.begin());
  if (same) return inner_TS.mul_(scales[0]);
  const std::vector<at::Tensor> columns = ColumnsOf(inner_TS, a_RI);
  for (size_t i = 0; i < columns.size(); ++i) at::Tensor(columns[i]).mul_(scales[i]);
  return inner_TS;
}

// The arguments of autograd are x, weight, A and B of each update, bias; what backward writes to is none of them.
class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_TI, const at::Tensor& weight_OI,
                            at::TensorList factors, const std::optional<at::Tensor>& bias_O,
                            const BackwardBuffer& grad_weight, const std::vector<LowRankUpdate>& updates,
                            const std::function<at::Tensor()>& remake) {
    at::Tensor y_TO = LinearMap(x_TI, weight_OI, bias_O.value_or(at::Tensor()));
    bool needed = weight_OI.requires_grad();
    variable_list a_RI, b_OR;
    std::vector<double> scales;
    std::vector<int64_t> rows;
    std::vector<at::Tensor> buffers = {grad_weight.tensor};
    for (const LowRankUpdate& update : updates) {
      needed = needed || update.a_RI.requires_grad();
      a_RI.push_back(update.a_RI);
      b_OR.push_back(update.b_OR);
      scales.push_back(update.scale);
      rows.push_back(update.row);
      buffers.insert(buffers.end(), {update.grad_a_RI, update.grad_b_OR});
    }
    variable_list saved = {needed && !remake ? x_TI : at::Tensor(), weight_OI};
    if (needed && remake) {
      context->saved_data["input"] = at::IValue::make_capsule(c10::make_intrusive<RemadeInput>(remake));
    }
    if (!updates.empty()) {
      const at::Tensor inner_TS = ScaledInner(x_TI, StackedA(a_RI).t(), a_RI, scales);
      AddMatMul(y_TO, inner_TS, StackedB(b_OR, rows, y_TO.size(1)).t());
      saved.push_back(inner_TS);
      saved.insert(saved.end(), a_RI.begin(), a_RI.end());
      saved.insert(saved.end(), b_OR.begin(), b_OR.end());
    }
    context->save_for_backward(saved);
    context->saved_data["scales"] = scales;
    context->saved_data["rows"] = rows;
    context->saved_data["buffers"] = buffers;
    context->saved_data["has_bias"] = bias_O.has_value();
    return y_TO;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &grad_TO = grad[0], &weight_OI = saved[1];
    const at::Tensor x_TI = Input(context, saved[0]);
    const std::vector<at::Tensor> buffers = context->saved_data["buffers"].toTensorVector();
    const size_t factors = buffers.size() - 1;  // A and B of each update
    variable_list grads(2 + factors + 4);       // the last three stand for what is no variable
    const auto wanted = [&](size_t input) { return context->needs_input_grad(input); };
    if (wanted(0)) grads[0] = MatMul(grad_TO, weight_OI);
    if (wanted(1)) grads[1] = WeightGradient(grad_TO, x_TI, buffers[0]);
    if (context->saved_data["has_bias"].toBool() && wanted(2 + factors)) grads[2 + factors] = grad_TO.sum(0);
    if (factors > 0) UpdatesBackward(context, saved, grad_TO, x_TI, buffers, grads);
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

  static void UpdatesBackward(AutogradContext* context, const variable_list& saved, const at::Tensor& grad_TO,
                              const at::Tensor& x_TI, const std::vector<at::Tensor>& buffers, variable_list& grads) {
    const std::vector<double> scales = context->saved_data["scales"].toDoubleVector();
    const std::vector<int64_t> rows = context->saved_data["rows"].toIntVector();
    const size_t updates = scales.size();
    const auto first_a = saved.begin() + 3, first_b = first_a + static_cast<std::ptrdiff_t>(updates);
    const variable_list a_RI(first_a, first_b), b_OR(first_b, saved.end());
    const auto wanted = [&](size_t input) { return context->needs_input_grad(input); };
    const auto a = [](size_t update) { return 2 + 2 * update; };  // where A is among the arguments; B is behind it
    bool a_wanted = false;
    const std::vector<at::Tensor> inner_TR = ColumnsOf(saved[2], a_RI);
    for (size_t i = 0; i < updates; ++i) {
      const at::Tensor grad_rows_TO = grad_TO.narrow(1, rows[i], b_OR[i].size(0));
      if (wanted(a(i) + 1)) grads[a(i) + 1] = WeightGradient(grad_rows_TO, inner_TR[i], buffers[2 * i + 2]);
      a_wanted = a_wanted || wanted(a(i));
    }
    if (!wanted(0) && !a_wanted) return;
    const at::Tensor grad_inner_TS = ScaledInner(grad_TO, StackedB(b_OR, rows, grad_TO.size(1)), a_RI, scales);
    if (wanted(0)) AddMatMul(grads[0], grad_inner_TS, StackedA(a_RI));
    if (!a_wanted) return;
    if (updates == 1) {
      grads[a(0)] = WeightGradient(grad_inner_TS, x_TI, buffers[1]);
      return;
    }
    at::Tensor sum_SI = at::zeros({grad_inner_TS.size(1), x_TI.size(1)}, x_TI.options().dtype(at::kFloat));
    AddWeightGradient(grad_inner_TS, x_TI, sum_SI);
    int64_t row = 0;
    for (size_t i = 0; i < updates; row += a_RI[i++].size(0)) {
      if (!wanted(a(i))) continue;
      const at::Tensor sum_RI = sum_SI.narrow(0, row, a_RI[i].size(0));
      at::Tensor buffer_RI = buffers[2 * i + 1];
      if (buffer_RI.defined()) {
        buffer_RI.add_(sum_RI);
      } else {
        grads[a(i)] = sum_RI.to(a_RI[i].scalar_type());
      }
    }
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
  constexpr int64_t kFew = 64;
  if (x_TI.size(1) <= kFew && grad_TO.size(1) > kFew && cpu::CanMultiply(x_TI.t(), grad_TO, to_OI)) {
    // Of the two, the narrow one is cheaper to transpose.
    at::Tensor sum_IO = at::empty({x_TI.size(1), grad_TO.size(1)}, to_OI.options());
    MatMulInto(sum_IO, x_TI.t(), grad_TO);
    to_OI.add_(sum_IO.t());
  } else if (grad_TO.scalar_type() == at::kFloat || cpu::CanMultiply(grad_TO.t(), x_TI, to_OI)) {
    AddMatMul(to_OI, grad_TO.t(), x_TI);
  } else if (grad_TO.is_cuda()) {
    at::addmm_out(to_OI, to_OI, grad_TO.t(), x_TI, at::kFloat);
  } else {
    to_OI.add_(at::mm(grad_TO.t(), x_TI));
  }
}

}  // namespace temper::ops
