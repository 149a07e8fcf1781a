// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/grouped_linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

namespace temper::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <typename Visit>
void ForEachGroup(const std::vector<int64_t>& starts, Visit visit) {
  for (size_t group = 0; group + 1 < starts.size(); ++group) {
    const int64_t rows = starts[group + 1] - starts[group];
    if (rows > 0) visit(static_cast<int64_t>(group), starts[group], rows);
  }
}

class GroupedLinearFunction : public torch::autograd::Function<GroupedLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_SI, const at::Tensor& weight_GOI,
                            const std::optional<at::Tensor>& bias_GO, const std::vector<int64_t>& starts) {
    at::Tensor y_SO = at::empty({x_SI.size(0), weight_GOI.size(1)}, x_SI.options());
    ForEachGroup(starts, [&](int64_t group, int64_t begin, int64_t rows) {
      at::Tensor y = y_SO.narrow(0, begin, rows);
      const at::Tensor x = x_SI.narrow(0, begin, rows);
      const at::Tensor weight_IO = weight_GOI.select(0, group).t();
      if (bias_GO) {
        at::addmm_out(y, bias_GO->select(0, group), x, weight_IO);
      } else {
        at::mm_out(y, x, weight_IO);
      }
    });
    context->save_for_backward({x_SI, weight_GOI});
    context->saved_data["starts"] = starts;
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
    if (context->needs_input_grad(1)) grad_weight = at::zeros_like(weight_GOI);
    if (context->saved_data["has_bias"].toBool() && context->needs_input_grad(2)) {
      grad_bias = at::zeros({weight_GOI.size(0), weight_GOI.size(1)}, weight_GOI.options());
    }
    ForEachGroup(starts, [&](int64_t group, int64_t begin, int64_t rows) {
      const at::Tensor grad_y = grad_SO.narrow(0, begin, rows);
      if (grad_x.defined()) {
        at::Tensor into = grad_x.narrow(0, begin, rows);
        at::mm_out(into, grad_y, weight_GOI.select(0, group));
      }
      if (grad_weight.defined()) {
        at::Tensor into = grad_weight.select(0, group);
        at::mm_out(into, grad_y.t(), x_SI.narrow(0, begin, rows));
      }
      if (grad_bias.defined()) grad_bias.select(0, group).copy_(grad_y.sum(0));
    });
    return {grad_x, grad_weight, grad_bias, at::Tensor()};
  }
};

}  // namespace

at::Tensor GroupedLinear(const at::Tensor& x_SI, const at::Tensor& weight_GOI, const at::Tensor& bias_GO,
                         const std::vector<int64_t>& starts) {
  TORCH_CHECK(static_cast<int64_t>(starts.size()) == weight_GOI.size(0) + 1 && starts.front() == 0 &&
                  starts.back() == x_SI.size(0),
              "starts must go from 0 to the number of rows, with a group for each weight");
  const std::optional<at::Tensor> bias = bias_GO.defined() ? std::optional(bias_GO) : std::nullopt;
  return GroupedLinearFunction::apply(x_SI, weight_GOI, bias, starts);
}

}  // namespace temper::ops
