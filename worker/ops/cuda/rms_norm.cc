// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "worker/ops/cuda/launch.h"
#include "worker/ops/cuda/operators.h"
#include "worker/ops/cuda/rms_norm_kernel.h"

namespace temper::ops::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

RmsNormRows ShapeOf(const at::Tensor& x, double weight_offset) {
  return {ElementTypeOf(x), x.numel() / x.size(-1), x.size(-1), static_cast<float>(weight_offset)};
}

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_any, const at::Tensor& weight_D,
                            const NormConfig& config) {
    TORCH_CHECK(weight_D.scalar_type() == x_any.scalar_type(), "the norm's weight must have its input's dtype");
    const at::Tensor x = x_any.contiguous();
    const RmsNormRows shape = ShapeOf(x, config.weight_offset);
    at::Tensor y = at::empty_like(x);
    at::Tensor scale = at::empty({shape.rows}, x.options().dtype(at::kFloat));
    const bool rounds_twice = !config.rounds_once && config.weight_offset == 0;
    Launch(x, [&](cudaStream_t stream) {
      RmsNormForward(shape, x.const_data_ptr(), weight_D.const_data_ptr(), static_cast<float>(config.epsilon),
                     rounds_twice, y.mutable_data_ptr(), scale.mutable_data_ptr<float>(), stream);
    });
    context->save_for_backward({x, weight_D, scale});
    context->saved_data["weight_offset"] = config.weight_offset;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight_D = saved[1], &scale = saved[2];
    const at::Tensor grad_y = grad[0].contiguous();
    const RmsNormRows shape = ShapeOf(x, context->saved_data["weight_offset"].toDouble());
    const int64_t partials = RmsNormPartials(shape);
    at::Tensor grad_x, partial_PD;
    if (context->needs_input_grad(0)) grad_x = at::empty_like(x);
    if (context->needs_input_grad(1)) partial_PD = at::empty({partials, shape.width}, scale.options());
    Launch(x, [&](cudaStream_t stream) {
      RmsNormBackward(shape, grad_y.const_data_ptr(), x.const_data_ptr(), weight_D.const_data_ptr(),
                      scale.const_data_ptr<float>(), grad_x.defined() ? grad_x.mutable_data_ptr() : nullptr,
                      partial_PD.defined() ? partial_PD.mutable_data_ptr<float>() : nullptr, partials, stream);
    });
    at::Tensor grad_weight;
    if (partial_PD.defined()) grad_weight = partial_PD.sum(0).to(weight_D.scalar_type());
    return {grad_x, grad_weight, at::Tensor()};
  }
};

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight_D, const NormConfig& config) {
  return RmsNormFunction::apply(x, weight_D, config);
}

}  // namespace temper::ops::cuda
