// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "worker/ops/cpu/bf16.h"

namespace temper::ops::cpu {

// A task has kPanel rows of C, and where there are no more, kShort of its columns; or kPanel columns of kLength rows.
// One product sums over kDepth numbers: longer sums in fp32 would be less exact (a sum over 1,536 in one go is off
// twice as far as MKL's). Fixed, so that sums don't depend on the number of threads; a task's operands stay in the
// cache.
inline constexpr int64_t kPanel = 64, kShort = 256, kLength = 1024, kDepth = 256;
// A bf16 product of at most kPanel rows reads B but once, and from one end to the other: a task has at least kDepth of
// its rows, kFlatDepth at a time, and a sum of its own; there are at most kFlatSums.
inline constexpr int64_t kFlatDepth = 64, kFlatSums = 8;
// The depth of a bf16 product is padded with zeros to a multiple of this many.
inline constexpr int64_t kDepthGrain = 32;

// C = A·B, or C += A·B: C is M × N and fp32, A is M × K and B is K × N, both fp32 or both bf16. Strides count numbers
// from row to row, or, of a transposed operand, from column to column.
struct MatMul {
  int64_t m = 0, n = 0, k = 0;
  bool add = false;
  bool bf16 = false;                                // then A is transposed, and B is not
  bool a_transposed = false, b_transposed = false;  // not both
  const void *a = nullptr, *b = nullptr;
  int64_t a_stride = 0, b_stride = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  // B as a right operand of Brgemm, its depth padded; of bf16 products with more than a panel of rows.
  Bf16* b_right = nullptr;

  int64_t padded_k() const { return bf16 ? (k + kDepthGrain - 1) / kDepthGrain * kDepthGrain : k; }
};

// Rows [begin, begin + rows) of Aᵀ and B, both bf16, and `sum` (m × n) what they add to C. `right`: room for kFlatDepth
// rows of B.
struct FlatTask {
  int64_t begin, rows;
  float* sum;
  char* scratch;
  Bf16* right;
};

// Panels are independent of each other. `scratch`: kMatMulScratch bytes, aligned as a vector is.
struct MatMulKernels {
  // bf16 alone: rows [begin, begin + kDepthGrain) of B into b_right.
  void (*pack_b)(const MatMul& product, int64_t begin);
  // Columns [column, column + columns) of rows [row, row + kPanel) of C, where A is transposed.
  void (*row_panel)(const MatMul& product, int64_t row, int64_t column, int64_t columns, char* scratch);
  // Columns [column, column + kPanel) of rows [row, row + kLength), where A is not; fp32 alone.
  void (*column_panel)(const MatMul& product, int64_t row, int64_t column, char* scratch);
  void (*flat)(const MatMul& product, const FlatTask& task);
  // A row of C from those of `count` sums.
  void (*add_sums)(const MatMul& product, int64_t row, const float* sums, int64_t count);
};

inline constexpr int64_t kMatMulScratch = 2 * kPanel * kDepth * static_cast<int64_t>(sizeof(float));

namespace avx2 {
extern const MatMulKernels kMatMul;
}
namespace avx512 {
extern const MatMulKernels kMatMul;
}

}  // namespace temper::ops::cpu
