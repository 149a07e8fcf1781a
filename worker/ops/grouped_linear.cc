// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/grouped_linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <atomic>
#include <optional>

#include "worker/ops/backward_buffer.h"
#include "worker/ops/linear.h"
#include "worker/ops/matmul.h"

namespace temper::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// FLOPs of one product from which on all threads work on it together: about a millisecond of theirs.
constexpr double kLargeProduct = 2e9;

// What the threads of ForEachGroup need to know of a product with a group's weight.
struct Products {
  const std::vector<int64_t>& starts;
  double flops_per_row;
  bool on_cpu;
};

Products ProductsWith(const at::Tensor& weight_GOI, const std::vector<int64_t>& starts) {
  return {starts, 2.0 * static_cast<double>(weight_GOI.size(1) * weight_GOI.size(2)), weight_GOI.is_cpu()};
}

// Calls visit(group, first row, rows) for each group that has rows, in any order and from several threads.
template <typename Visit>
void ForEachGroup(const Products& products, Visit visit) {
  const std::vector<int64_t>& starts = products.starts;
  const auto groups = static_cast<int64_t>(starts.size()) - 1;
  const auto visit_group = [&](int64_t group) {
    const int64_t rows = starts[group + 1] - starts[group];
    if (rows > 0) visit(group, starts[group], rows);
  };
  const double each = products.flops_per_row * static_cast<double>(starts.back()) / static_cast<double>(groups);
  if (!products.on_cpu || each > kLargeProduct) {
    for (int64_t group = 0; group < groups; ++group) visit_group(group);
    return;
  }
  // Groups differ in size: who is done takes the next one.
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    const at::NoGradGuard no_grad;  // a thread's own state
    for (int64_t group = next++; group < groups; group = next++) visit_group(group);
  });
}

class GroupedLinearFunction : public torch::autograd::Function<GroupedLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_SI, const at::Tensor& weight_GOI,
                            const std::optional<at::Tensor>& bias_GO, const BackwardBuffer& grad_weight,
                            const std::vector<int64_t>& starts) {
    at::Tensor y_SO = at::empty({x_SI.size(0), weight_GOI.size(1)}, x_SI.options());
    ForEachGroup(ProductsWith(weight_GOI, starts), [&](int64_t group, int64_t begin, int64_t rows) {
      at::Tensor y = y_SO.narrow(0, begin, rows);
      const at::Tensor x = x_SI.narrow(0, begin, rows);
      const at::Tensor weight_IO = weight_GOI.select(0, group).t();
      if (bias_GO) {
        y.copy_(bias_GO->select(0, group).expand_as(y));
        AddMatMul(y, x, weight_IO);
      } else {
        MatMulInto(y, x, weight_IO);
      }
    });
    context->save_for_backward({x_SI, weight_GOI});
    context->saved_data["starts"] = starts;
    context->saved_data["grad_weight"] = grad_weight.tensor;
    context->saved_data["has_bias"] = bias_GO.has_value();
    return y_SO;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x_SI = saved[0], &weight_GOI = saved[1];
    const std::vector<int64_t> starts = context->saved_data["starts"].toIntVector();
    const at::Tensor grad_SO = grad[0].contiguous();
    at::Tensor grad_x, grad_weight, grad_bias;
    if (context->needs_input_grad(0)) grad_x = at::empty_like(x_SI, at::MemoryFormat::Contiguous);
    const at::Tensor buffer_GOI = context->saved_data["grad_weight"].toTensor();
    const bool weight_wanted = context->needs_input_grad(1);
    if (weight_wanted && !buffer_GOI.defined()) grad_weight = at::zeros_like(weight_GOI);
    if (context->saved_data["has_bias"].toBool() && context->needs_input_grad(2)) {
      grad_bias = at::zeros({weight_GOI.size(0), weight_GOI.size(1)}, weight_GOI.options());
    }
    ForEachGroup(ProductsWith(weight_GOI, starts), [&](int64_t group, int64_t begin, int64_t rows) {
      const at::Tensor grad_y = grad_SO.narrow(0, begin, rows);
      if (grad_x.defined()) {
        MatMulInto(grad_x.narrow(0, begin, rows), grad_y, weight_GOI.select(0, group));
      }
      if (grad_weight.defined()) {
        MatMulInto(grad_weight.select(0, group), grad_y.t(), x_SI.narrow(0, begin, rows));
      } else if (weight_wanted) {
        AddWeightGradient(grad_y, x_SI.narrow(0, begin, rows), buffer_GOI.select(0, group));
      }
      if (grad_bias.defined()) grad_bias.select(0, group).copy_(grad_y.sum(0));
    });
    return {grad_x, grad_weight, grad_bias, at::Tensor(), at::Tensor()};  // the last two stand for what is no variable
  }
};

}  // namespace

at::Tensor GroupedLinear(const at::Tensor& x_SI, const at::Tensor& weight_GOI, const at::Tensor& bias_GO,
                         const std::vector<int64_t>& starts, const at::Tensor& grad_weight_GOI) {
  TORCH_CHECK(static_cast<int64_t>(starts.size()) == weight_GOI.size(0) + 1 && starts.front() == 0 &&
                  starts.back() == x_SI.size(0),
              "starts must go from 0 to the number of rows, with a group for each weight");
  return GroupedLinearFunction::apply(x_SI, weight_GOI, IfDefined(bias_GO), BackwardBuffer{grad_weight_GOI}, starts);
}

}  // namespace temper::ops
