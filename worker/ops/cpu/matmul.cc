// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>
#include <memory>

#include "worker/ops/cpu/brgemm.h"
#include "worker/ops/cpu/instruction_set.h"
#include "worker/ops/cpu/matmul_kernel.h"
#include "worker/ops/cpu/operators.h"
#include "worker/ops/cpu/tasks.h"

namespace temper::ops::cpu {
namespace {

const MatMulKernels& Chosen() { return Choose(avx2::kMatMul, avx512::kMatMul); }

int64_t Pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

// Rows are dense, or columns are.
bool IsPlain(const at::Tensor& x) { return x.stride(1) == 1; }
bool IsTransposed(const at::Tensor& x) { return !IsPlain(x) && x.stride(0) == 1; }

// Runs run(panel, scratch) for each.
template <typename Run>
void RunPanels(int64_t panels, const Run& run) {
  RunTasks(panels, [&] {
    const at::Tensor memory = at::empty({kMatMulScratch}, at::kByte);
    const std::shared_ptr<void> release(nullptr, [memory](void*) { ReleaseBrgemm(); });
    return [&run, memory, release](int64_t panel) { run(panel, static_cast<char*>(memory.mutable_data_ptr())); };
  });
}

int64_t RoundUp(int64_t size, int64_t grain) { return Pieces(size, grain) * grain; }

// The order of sums depends on the shape alone.
void MultiplyFlat(const MatMul& product) {
  const int64_t rows = std::max(kDepth, RoundUp(Pieces(product.k, kFlatSums), kFlatDepth));
  const int64_t tasks = Pieces(product.k, rows), size = product.m * product.n;
  const at::Tensor sums = at::empty({tasks * size}, at::kFloat);
  float* const sum = sums.mutable_data_ptr<float>();
  RunTasks(tasks, [&] {
    const at::Tensor memory = at::empty({kMatMulScratch + kFlatDepth * product.n * int64_t{sizeof(Bf16)}}, at::kByte);
    const std::shared_ptr<void> release(nullptr, [memory](void*) { ReleaseBrgemm(); });
    return [&, memory, release](int64_t task) {
      char* const scratch = static_cast<char*>(memory.mutable_data_ptr());
      Chosen().flat(product, {.begin = task * rows,
                              .rows = std::min(rows, product.k - task * rows),
                              .sum = sum + task * size,
                              .scratch = scratch,
                              .right = reinterpret_cast<Bf16*>(scratch + kMatMulScratch)});
    };
  });
  RunTasks(product.m, [&] { return [&](int64_t row) { Chosen().add_sums(product, row, sum, tasks); }; });
}

}  // namespace

bool CanMultiply(const at::Tensor& a_MK, const at::Tensor& b_KN, const at::Tensor& c_MN) {
  if (Kernels() == InstructionSet::kNone || !a_MK.is_cpu() || a_MK.numel() == 0 || b_KN.numel() == 0) return false;
  if (a_MK.scalar_type() != b_KN.scalar_type() || c_MN.scalar_type() != at::kFloat || !IsPlain(c_MN)) return false;
  const bool a_fits = IsPlain(a_MK) || IsTransposed(a_MK), b_fits = IsPlain(b_KN) || IsTransposed(b_KN);
  if (a_MK.scalar_type() == at::kFloat) {
    return a_fits && b_fits && !(IsTransposed(a_MK) && IsTransposed(b_KN));
  }
  return a_MK.scalar_type() == at::kBFloat16 && HasBf16Brgemm() && IsTransposed(a_MK) && IsPlain(b_KN);
}

void Multiply(const at::Tensor& a_MK, const at::Tensor& b_KN, at::Tensor c_MN, bool add) {
  MatMul product;
  product.m = a_MK.size(0);
  product.k = a_MK.size(1);
  product.n = b_KN.size(1);
  product.add = add;
  product.bf16 = a_MK.scalar_type() == at::kBFloat16;
  product.a_transposed = IsTransposed(a_MK);
  product.b_transposed = IsTransposed(b_KN);
  product.a = a_MK.const_data_ptr();
  product.b = b_KN.const_data_ptr();
  product.a_stride = a_MK.stride(product.a_transposed ? 1 : 0);
  product.b_stride = b_KN.stride(product.b_transposed ? 1 : 0);
  product.c = c_MN.mutable_data_ptr<float>();
  product.c_stride = c_MN.stride(0);
  if (product.bf16 && product.m <= kPanel) return MultiplyFlat(product);
  at::Tensor b_right;
  if (product.bf16) {
    b_right = at::empty({product.padded_k() * product.n}, b_KN.options());
    product.b_right = static_cast<Bf16*>(b_right.mutable_data_ptr());
    RunTasks(product.padded_k() / kDepthGrain,
             [&] { return [&](int64_t slice) { Chosen().pack_b(product, slice * kDepthGrain); }; });
  }
  if (product.a_transposed) {
    const int64_t width = product.m > kPanel ? product.n : kShort, pieces = Pieces(product.n, width);
    RunPanels(Pieces(product.m, kPanel) * pieces, [&](int64_t panel, char* scratch) {
      Chosen().row_panel(product, panel / pieces * kPanel, panel % pieces * width, width, scratch);
    });
    return;
  }
  const int64_t columns = Pieces(product.n, kPanel);
  RunPanels(Pieces(product.m, kLength) * columns, [&](int64_t panel, char* scratch) {
    Chosen().column_panel(product, panel / columns * kLength, panel % columns * kPanel, scratch);
  });
}

}  // namespace temper::ops::cpu
