// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "worker/ops/cpu/instruction_set.h"
#include "worker/ops/cpu/operators.h"
#include "worker/ops/cpu/rms_norm_kernel.h"

namespace temper::ops::cpu {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows whose part of the weight's gradient is summed before the parts are: fixed, so that the sum does not depend on
// the number of threads.
constexpr int64_t kRowsPerPart = 64;
// Elements that are worth a thread of their own.
constexpr int64_t kGrain = 1 << 14;

const RmsNormKernels& Chosen() { return Choose(avx2::kRmsNorm, avx512::kRmsNorm); }

RmsNormRows RowsOf(const at::Tensor& x, const at::Tensor& weight_D, const at::Tensor& scale, double weight_offset) {
  RmsNormRows rows;
  rows.bf16 = x.scalar_type() == at::kBFloat16;
  rows.width = x.size(-1);
  rows.x = x.const_data_ptr();
  rows.weight = weight_D.const_data_ptr();
  rows.weight_offset = static_cast<float>(weight_offset);
  rows.scale = scale.mutable_data_ptr<float>();
  return rows;
}

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_any, const at::Tensor& weight_any,
                            const NormConfig& config) {
    const at::Tensor x = x_any.contiguous(), weight_D = weight_any.contiguous();
    const int64_t count = x.numel() / x.size(-1);
    at::Tensor y = at::empty(x.sizes(), x.options());
    const at::Tensor scale = at::empty({count}, x.options().dtype(at::kFloat));
    RmsNormRows rows = RowsOf(x, weight_D, scale, config.weight_offset);
    rows.epsilon = static_cast<float>(config.epsilon);
    rows.rounds_twice = !config.rounds_once && config.weight_offset == 0;
    rows.y = y.mutable_data_ptr();
    at::parallel_for(0, count, std::max<int64_t>(1, kGrain / rows.width),
                     [&](int64_t begin, int64_t end) { Chosen().forward(rows, begin, end); });
    context->save_for_backward({x, weight_D, scale});
    context->saved_data["weight_offset"] = config.weight_offset;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight_D = saved[1], &scale = saved[2];
    const at::Tensor grad_y = grad[0].contiguous();
    RmsNormRows rows = RowsOf(x, weight_D, scale, context->saved_data["weight_offset"].toDouble());
    rows.grad_y = grad_y.const_data_ptr();
    const int64_t count = scale.numel(), parts = (count + kRowsPerPart - 1) / kRowsPerPart;
    at::Tensor grad_x, parts_PD, grad_weight;
    if (context->needs_input_grad(0)) {
      grad_x = at::empty(x.sizes(), x.options());
      rows.grad_x = grad_x.mutable_data_ptr();
    }
    if (context->needs_input_grad(1)) parts_PD = at::empty({parts, rows.width}, scale.options());
    at::parallel_for(0, parts, std::max<int64_t>(1, kGrain / (kRowsPerPart * rows.width)),
                     [&](int64_t begin, int64_t end) {
                       RmsNormRows part = rows;
                       for (int64_t i = begin; i < end; ++i) {
                         if (parts_PD.defined()) part.grad_weight = parts_PD.mutable_data_ptr<float>() + i * rows.width;
                         Chosen().backward(part, i * kRowsPerPart, std::min((i + 1) * kRowsPerPart, count));
                       }
                     });
    if (parts_PD.defined()) grad_weight = SumParts(parts_PD).to(weight_D.scalar_type());
    return {grad_x, grad_weight, at::Tensor()};
  }

 private:
  // In order: at::sum may go another way with another number of threads.
  static at::Tensor SumParts(const at::Tensor& parts_PD) {
    at::Tensor sum_D = parts_PD[0].clone();
    for (int64_t i = 1; i < parts_PD.size(0); ++i) sum_D.add_(parts_PD[i]);
    return sum_D;
  }
};

}  // namespace

bool CanRmsNorm(const at::Tensor& x, const at::Tensor& weight_D) {
  const auto dtype = x.scalar_type();
  return Kernels() != InstructionSet::kNone && x.is_cpu() && x.numel() > 0 && weight_D.scalar_type() == dtype &&
         (dtype == at::kFloat || dtype == at::kBFloat16);
}

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight_D, const NormConfig& config) {
  return RmsNormFunction::apply(x, weight_D, config);
}

}  // namespace temper::ops::cpu
