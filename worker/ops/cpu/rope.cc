// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/rope.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "worker/ops/cpu/instruction_set.h"
#include "worker/ops/cpu/operators.h"
#include "worker/ops/cpu/rope_kernel.h"

namespace temper::ops::cpu {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Elements that are worth a thread of their own.
constexpr int64_t kGrain = 1 << 14;

const RopeKernels& Chosen() { return Choose(avx2::kRope, avx512::kRope); }

at::Tensor Rotate(const at::Tensor& any_THd, const at::Tensor& cos_Th, const at::Tensor& sin_Th, float direction) {
  const at::Tensor x_THd = any_THd.stride(2) == 1 ? any_THd : any_THd.contiguous();
  const at::Tensor cos = cos_Th.contiguous(), sin = sin_Th.contiguous();
  at::Tensor y_THd = at::empty(x_THd.sizes(), x_THd.options());
  RopeRows rows;
  rows.bf16 = x_THd.scalar_type() == at::kBFloat16;
  rows.heads = x_THd.size(1);
  rows.width = x_THd.size(2);
  rows.half = cos.size(1);
  rows.x = x_THd.const_data_ptr();
  rows.token_stride = x_THd.stride(0);
  rows.head_stride = x_THd.stride(1);
  rows.cos = cos.const_data_ptr<float>();
  rows.sin = sin.const_data_ptr<float>();
  rows.direction = direction;
  rows.y = y_THd.mutable_data_ptr();
  at::parallel_for(0, x_THd.size(0), std::max<int64_t>(1, kGrain / (rows.heads * rows.width)),
                   [&](int64_t begin, int64_t end) { Chosen().rotate(rows, begin, end); });
  return y_THd;
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

bool CanApplyRope(const at::Tensor& x_THd) {
  const auto dtype = x_THd.scalar_type();
  return Kernels() != InstructionSet::kNone && x_THd.is_cpu() && (dtype == at::kFloat || dtype == at::kBFloat16);
}

at::Tensor ApplyRope(const at::Tensor& x_THd, const RopeTable& table) {
  return RopeFunction::apply(x_THd, table.cos_Th, table.sin_Th);
}

}  // namespace temper::ops::cpu
