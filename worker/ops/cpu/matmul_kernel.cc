// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/matmul_kernel.h"

#include "worker/ops/cpu/brgemm.h"
#include "worker/ops/cpu/pack.h"

namespace temper::ops::cpu::TEMPER_ISA {
namespace {

// As much of `left` as one product takes: sizes that vary from batch to batch go by halves, since each shape of Brgemm
// is compiled.
int64_t Piece(int64_t left, int64_t largest) {
  while (largest > left) largest /= 2;
  return largest;
}

void PackB(const MatMul& p, int64_t begin) {
  const Rows<Bf16> b = {static_cast<const Bf16*>(p.b) + begin * p.b_stride, p.b_stride};
  PackRight(b, Smaller(kDepthGrain, p.k - begin), p.n, kDepthGrain, p.b_right + begin * p.n);
}

// Where B's rows from k on are, as a right operand, from column n on; and numbers from row to row.
const float* Right(const MatMul& p, int64_t k, int64_t n, const float*) {
  return static_cast<const float*>(p.b) + k * p.b_stride + n;
}
const Bf16* Right(const MatMul& p, int64_t k, int64_t n, const Bf16*) { return p.b_right + k * p.n + 2 * n; }
int64_t RightStride(const MatMul& p) { return p.bf16 ? p.n : p.b_stride; }

template <typename Element>
void RowPanel(const MatMul& p, int64_t begin, int64_t column, int64_t columns, char* scratch) {
  const int64_t rows = Smaller(kPanel, p.m - begin), end = Smaller(column + columns, p.n);
  auto* const left = reinterpret_cast<Element*>(scratch);
  auto* const work = left + kPanel * kDepth;
  float* const c = p.c + begin * p.c_stride;
  for (int64_t k = 0, depth = 0; k < p.padded_k(); k += depth) {
    depth = Piece(p.padded_k() - k, kDepth);
    const int64_t padded = (depth + kDepthGrain - 1) / kDepthGrain * kDepthGrain;
    const Rows<Element> a = {static_cast<const Element*>(p.a) + k * p.a_stride + begin, p.a_stride};
    PackLeftTransposed(a, Smaller(depth, p.k - k), rows, padded, left, work);
    for (int64_t n = column; n < end; n += kLength) {
      Brgemm({rows, Smaller(kLength, end - n), depth, padded, RightStride(p), p.c_stride}, p.add || k > 0, left,
             Right(p, k, n, left), c + n);
    }
  }
}

void RowPanelOfAny(const MatMul& p, int64_t row, int64_t column, int64_t columns, char* scratch) {
  p.bf16 ? RowPanel<Bf16>(p, row, column, columns, scratch) : RowPanel<float>(p, row, column, columns, scratch);
}

void ColumnPanel(const MatMul& p, int64_t row, int64_t column, char* scratch) {
  const int64_t columns = Smaller(kPanel, p.n - column), end = Smaller(row + kLength, p.m);
  const auto *const a = static_cast<const float*>(p.a), *const b = static_cast<const float*>(p.b);
  const int64_t padded = (columns + kLanes - 1) / kLanes * kLanes;
  auto* const packed = reinterpret_cast<float*>(scratch);
  for (int64_t k = 0; k < p.k; k += kDepth) {
    const int64_t depth = Smaller(kDepth, p.k - k);
    const float* const right = p.b_transposed ? packed : b + k * p.b_stride + column;
    const int64_t stride = p.b_transposed ? padded : p.b_stride;
    if (p.b_transposed) {
      PackRightTransposed(Rows<float>{b + column * p.b_stride + k, p.b_stride}, columns, depth, padded, packed);
    }
    for (int64_t r = row, rows = 0; r < end; r += rows) {
      rows = Piece(end - r, 2 * kPanel);
      Brgemm({rows, columns, depth, p.a_stride, stride, p.c_stride}, p.add || k > 0, a + r * p.a_stride + k, right,
             p.c + r * p.c_stride + column);
    }
  }
}

void Flat(const MatMul& p, const FlatTask& task) {
  auto* const left = reinterpret_cast<Bf16*>(task.scratch);
  auto* const work = left + kPanel * kFlatDepth;
  const int64_t end = task.begin + task.rows;
  for (int64_t k = task.begin; k < end; k += kFlatDepth) {
    const int64_t depth = Smaller(kFlatDepth, end - k);
    const int64_t padded = (depth + kDepthGrain - 1) / kDepthGrain * kDepthGrain;
    PackLeftTransposed(Rows<Bf16>{static_cast<const Bf16*>(p.a) + k * p.a_stride, p.a_stride}, depth, p.m, padded, left,
                       work);
    PackRight(Rows<Bf16>{static_cast<const Bf16*>(p.b) + k * p.b_stride, p.b_stride}, depth, p.n, padded, task.right);
    for (int64_t n = 0; n < p.n; n += kLength) {
      Brgemm({p.m, Smaller(kLength, p.n - n), padded, padded, p.n, p.n}, k > task.begin, left, task.right + 2 * n,
             task.sum + n);
    }
  }
}

void AddSums(const MatMul& p, int64_t row, const float* sums, int64_t count) {
  float* const c = p.c + row * p.c_stride;
  ForEachVector(p.n, [&](int64_t n, int64_t lanes) {
    Floats total = p.add ? LoadSome(c + n, lanes) : Floats{};
    for (int64_t i = 0; i < count; ++i) total += LoadSome(sums + (i * p.m + row) * p.n + n, lanes);
    StoreSome(c + n, total, lanes);
  });
}

}  // namespace

const MatMulKernels kMatMul = {PackB, RowPanelOfAny, ColumnPanel, Flat, AddSums};

}  // namespace temper::ops::cpu::TEMPER_ISA
