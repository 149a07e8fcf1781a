// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/rope.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "worker/ops/cuda/launch.h"
#include "worker/ops/cuda/operators.h"
#include "worker/ops/cuda/rope_kernel.h"

namespace temper::ops::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor Rotate(const at::Tensor& x_any, const at::Tensor& cos_Th, const at::Tensor& sin_Th, float direction) {
  // Heads of a fused q, k, v product are read where they lie.
  const at::Tensor x_THd = x_any.stride(-1) == 1 ? x_any : x_any.contiguous();
  const RopeShape shape = {ElementTypeOf(x_THd), x_THd.size(0),   x_THd.size(1),  x_THd.size(2),
                           cos_Th.size(1),       x_THd.stride(0), x_THd.stride(1)};
  TORCH_CHECK(cos_Th.size(0) == shape.tokens && 2 * shape.half <= shape.width, "a RoPE table of another shape");
  TORCH_CHECK(cos_Th.is_contiguous() && sin_Th.is_contiguous(), "a RoPE table must be dense");
  at::Tensor out_THd = at::empty_like(x_THd, at::MemoryFormat::Contiguous);
  Launch(x_THd, [&](cudaStream_t stream) {
    Rope(shape, x_THd.const_data_ptr(), cos_Th.const_data_ptr<float>(), sin_Th.const_data_ptr<float>(), direction,
         out_THd.mutable_data_ptr(), stream);
  });
  return out_THd;
}

class RopeFunction : public torch::autograd::Function<RopeFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_THd, const at::Tensor& cos_Th,
                            const at::Tensor& sin_Th) {
    context->save_for_backward({cos_Th, sin_Th});
    return Rotate(x_THd, cos_Th, sin_Th, 1);
  }
  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    return {Rotate(grad[0], saved[0], saved[1], -1), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor ApplyRope(const at::Tensor& x_THd, const RopeTable& table) {
  return RopeFunction::apply(x_THd, table.cos_Th, table.sin_Th);
}

}  // namespace temper::ops::cuda
