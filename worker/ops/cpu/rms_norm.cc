// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

#include "worker/ops/cpu/instruction_set.h"
#include "worker/ops/cpu/operators.h"
#include "worker/ops/cpu/rms_norm_kernel.h"
#include "worker/ops/rope.h"

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

// x: dense, or [tokens, heads, width] of which each row is.
RmsNormRows RowsOf(const at::Tensor& x, const at::Tensor& weight_D, const at::Tensor& scale, double weight_offset) {
  RmsNormRows rows;
  rows.bf16 = x.scalar_type() == at::kBFloat16;
  rows.width = x.size(-1);
  rows.token_stride = rows.width;
  if (!x.is_contiguous()) {
    rows.heads = x.size(1);
    rows.token_stride = x.stride(0);
    rows.head_stride = x.stride(1);
  }
  rows.x = x.const_data_ptr();
  rows.weight = weight_D.const_data_ptr();
  rows.weight_offset = static_cast<float>(weight_offset);
  rows.scale = scale.mutable_data_ptr<float>();
  return rows;
}

struct Normed {
  at::Tensor sum, y, scale;  // `sum`: what was normed
};

// Rows of [tokens, heads, width] are rotated as well.
void SetRotation(RmsNormRows& rows, const at::Tensor& x_THd, const RopeTable& table) {
  rows.heads = x_THd.size(1);
  rows.token_stride = x_THd.stride(0);
  rows.head_stride = x_THd.stride(1);
  rows.cos = table.cos_Th.const_data_ptr<float>();
  rows.sin = table.sin_Th.const_data_ptr<float>();
  rows.half = table.cos_Th.size(1);
}

// `update` may be undefined: then x is normed as it is; `table` may be null: then nothing is rotated.
Normed Forward(const at::Tensor& x, const at::Tensor& update, const at::Tensor& weight_D, const NormConfig& config,
               const RopeTable* table = nullptr) {
  const int64_t count = x.numel() / x.size(-1);
  Normed result = {x, at::empty(x.sizes(), x.options()), at::empty({count}, x.options().dtype(at::kFloat))};
  RmsNormRows rows = RowsOf(x, weight_D, result.scale, config.weight_offset);
  if (table != nullptr) SetRotation(rows, x, *table);
  rows.epsilon = static_cast<float>(config.epsilon);
  rows.rounds_twice = !config.rounds_once && config.weight_offset == 0;
  rows.y = result.y.mutable_data_ptr();
  if (update.defined()) {
    result.sum = at::empty(x.sizes(), x.options());
    rows.update = update.const_data_ptr();
    rows.sum = result.sum.mutable_data_ptr();
  }
  at::parallel_for(0, count, std::max<int64_t>(1, kGrain / rows.width),
                   [&](int64_t begin, int64_t end) { Chosen().forward(rows, begin, end); });
  return result;
}

// In order: at::sum may go another way with another number of threads. The first of the parts becomes the sum.
at::Tensor SumParts(at::Tensor parts_PD) {
  float* const sum = parts_PD.mutable_data_ptr<float>();
  const int64_t width = parts_PD.size(1);
  for (int64_t part = 1; part < parts_PD.size(0); ++part) {
    for (int64_t i = 0; i < width; ++i) sum[i] += sum[part * width + i];
  }
  return parts_PD[0];
}

struct Gradients {
  at::Tensor x, weight;  // undefined where nobody wants it
};

// `grad_sum` may be undefined, and `table` null.
Gradients Backward(const Normed& normed, const at::Tensor& weight_D, double weight_offset, const at::Tensor& grad_sum,
                   const at::Tensor& grad_y, bool x_wanted, bool weight_wanted, const RopeTable* table = nullptr) {
  RmsNormRows rows = RowsOf(normed.sum, weight_D, normed.scale, weight_offset);
  if (table != nullptr) SetRotation(rows, normed.sum, *table);
  rows.grad_y = grad_y.const_data_ptr();
  if (grad_sum.defined()) rows.grad_sum = grad_sum.const_data_ptr();
  const int64_t count = normed.scale.numel(), parts = (count + kRowsPerPart - 1) / kRowsPerPart;
  Gradients result;
  at::Tensor parts_PD;
  if (x_wanted) {
    result.x = at::empty(normed.sum.sizes(), normed.sum.options());
    rows.grad_x = result.x.mutable_data_ptr();
  }
  if (weight_wanted) parts_PD = at::empty({parts, rows.width}, normed.scale.options());
  at::parallel_for(0, parts, std::max<int64_t>(1, kGrain / (kRowsPerPart * rows.width)),
                   [&](int64_t begin, int64_t end) {
                     RmsNormRows part = rows;
                     for (int64_t i = begin; i < end; ++i) {
                       if (weight_wanted) part.grad_weight = parts_PD.mutable_data_ptr<float>() + i * rows.width;
                       Chosen().backward(part, i * kRowsPerPart, std::min((i + 1) * kRowsPerPart, count));
                     }
                   });
  if (weight_wanted) result.weight = SumParts(parts_PD).to(weight_D.scalar_type());
  return result;
}

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_any, const at::Tensor& weight_any,
                            const NormConfig& config) {
    const at::Tensor x = x_any.contiguous(), weight_D = weight_any.contiguous();
    const Normed normed = Forward(x, {}, weight_D, config);
    context->save_for_backward({x, weight_D, normed.scale});
    context->saved_data["weight_offset"] = config.weight_offset;
    return normed.y;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const Gradients gradients =
        Backward({saved[0], {}, saved[2]}, saved[1], context->saved_data["weight_offset"].toDouble(), {},
                 grad[0].contiguous(), context->needs_input_grad(0), context->needs_input_grad(1));
    return {gradients.x, gradients.weight, at::Tensor()};
  }
};

class AddRmsNormFunction : public torch::autograd::Function<AddRmsNormFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x_any, const at::Tensor& update_any,
                               const at::Tensor& weight_any, const NormConfig& config) {
    const at::Tensor weight_D = weight_any.contiguous();
    const Normed normed = Forward(x_any.contiguous(), update_any.contiguous(), weight_D, config);
    context->save_for_backward({normed.sum, weight_D, normed.scale});
    context->saved_data["weight_offset"] = config.weight_offset;
    return {normed.sum, normed.y};
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const bool sum_wanted = context->needs_input_grad(0) || context->needs_input_grad(1);
    const Gradients gradients =
        Backward({saved[0], {}, saved[2]}, saved[1], context->saved_data["weight_offset"].toDouble(),
                 grad[0].contiguous(), grad[1].contiguous(), sum_wanted, context->needs_input_grad(2));
    return {gradients.x, gradients.x, gradients.weight, at::Tensor()};
  }
};

class RmsNormRopeFunction : public torch::autograd::Function<RmsNormRopeFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_any, const at::Tensor& weight_any,
                            const at::Tensor& cos_any, const at::Tensor& sin_any, const NormConfig& config) {
    const at::Tensor x_THd = x_any.stride(2) == 1 ? x_any : x_any.contiguous(), weight_d = weight_any.contiguous();
    const RopeTable table = {cos_any.contiguous(), sin_any.contiguous()};
    const Normed normed = Forward(x_THd, {}, weight_d, config, &table);
    context->save_for_backward({x_THd, weight_d, normed.scale, table.cos_Th, table.sin_Th});
    context->saved_data["weight_offset"] = config.weight_offset;
    return normed.y;
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    const variable_list saved = context->get_saved_variables();
    const RopeTable table = {saved[3], saved[4]};
    const Gradients gradients =
        Backward({saved[0], {}, saved[2]}, saved[1], context->saved_data["weight_offset"].toDouble(), {},
                 grad[0].contiguous(), context->needs_input_grad(0), context->needs_input_grad(1), &table);
    return {gradients.x, gradients.weight, at::Tensor(), at::Tensor(), at::Tensor()};
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

std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& x, const at::Tensor& update, const at::Tensor& weight_D,
                                             const NormConfig& config) {
  const variable_list results = AddRmsNormFunction::apply(x, update, weight_D, config);
  return {results[0], results[1]};
}

bool CanRmsNormRope(const at::Tensor& x_THd, const at::Tensor& weight_d) {
  return CanRmsNorm(x_THd, weight_d) && x_THd.dim() == 3 && x_THd.size(2) <= kMaxRotatedWidth;
}

at::Tensor RmsNormRope(const at::Tensor& x_THd, const at::Tensor& weight_d, const NormConfig& config,
                       const RopeTable& table) {
  return RmsNormRopeFunction::apply(x_THd, weight_d, table.cos_Th, table.sin_Th, config);
}

}  // namespace temper::ops::cpu
