// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <memory>

#include "worker/ops/cpu/brgemm.h"
#include "worker/ops/cpu/instruction_set.h"
#include "worker/ops/cpu/operators.h"
#include "worker/ops/cpu/tasks.h"
#include "worker/ops/cpu/weight_gradient_kernel.h"

namespace temper::ops::cpu {
namespace {

const WeightGradientKernels& Chosen() { return Choose(avx2::kWeightGradient, avx512::kWeightGradient); }

int64_t Pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

const Bf16* Data(const at::Tensor& tensor) { return static_cast<const Bf16*>(tensor.const_data_ptr()); }
Bf16* MutableData(const at::Tensor& tensor) { return static_cast<Bf16*>(tensor.mutable_data_ptr()); }

void Pack(const WeightGradient& gradient, const at::TensorOptions& options) {
  const int64_t slices = Pieces(gradient.outputs, kGradientRows);
  RunTasks(slices + gradient.padded / kTokenGrain, [&] {
    const at::Tensor work = at::empty({gradient.padded * kGradientRows}, options);
    return [&gradient, slices, work](int64_t task) {
      if (task < slices) return Chosen().pack_grad(gradient, task * kGradientRows, MutableData(work));
      Chosen().pack_x(gradient, (task - slices) * kTokenGrain);
    };
  });
}

void AddTiles(const WeightGradient& gradient) {
  const int64_t columns = Pieces(gradient.inputs, kGradientColumns);
  RunTasks(Pieces(gradient.outputs, kGradientRows) * columns, [&] {
    const std::shared_ptr<void> release(nullptr, [](void*) { ReleaseBrgemm(); });
    return [&gradient, columns, release](int64_t task) {
      Chosen().add_tile(gradient, task / columns * kGradientRows, task % columns * kGradientColumns);
    };
  });
}

}  // namespace

bool CanAddWeightGradient(const at::Tensor& grad_TO, const at::Tensor& x_TI, const at::Tensor& to_OI) {
  const auto fits = [](const at::Tensor& x) {
    return x.is_cpu() && x.scalar_type() == at::kBFloat16 && x.dim() == 2 && x.stride(1) == 1;
  };
  return Kernels() != InstructionSet::kNone && HasBf16Brgemm() && fits(grad_TO) && fits(x_TI) &&
         to_OI.is_contiguous() && to_OI.scalar_type() == at::kFloat;
}

void AddWeightGradient(const at::Tensor& grad_TO, const at::Tensor& x_TI, at::Tensor to_OI) {
  WeightGradient gradient;
  gradient.tokens = x_TI.size(0);
  gradient.padded = Pieces(gradient.tokens, kTokenGrain) * kTokenGrain;
  gradient.outputs = grad_TO.size(1);
  gradient.inputs = x_TI.size(1);
  gradient.grad = Data(grad_TO);
  gradient.grad_stride = grad_TO.stride(0);
  gradient.x = Data(x_TI);
  gradient.x_stride = x_TI.stride(0);
  const at::Tensor grad_left = at::empty({gradient.outputs * gradient.padded}, x_TI.options());
  const at::Tensor x_right = at::empty({gradient.padded * gradient.inputs}, x_TI.options());
  gradient.grad_left = MutableData(grad_left);
  gradient.x_right = MutableData(x_right);
  gradient.to_OI = to_OI.mutable_data_ptr<float>();
  Pack(gradient, x_TI.options());
  AddTiles(gradient);
}

}  // namespace temper::ops::cpu
