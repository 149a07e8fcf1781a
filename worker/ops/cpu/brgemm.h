// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>

#include "worker/ops/cpu/bf16.h"

namespace temper::ops::cpu {

// A matrix product on the calling thread, by oneDNN's batch-reduce GEMM.
struct GemmShape {
  int64_t m, n, k;
  int64_t lda, ldb, ldc;  // numbers from row to row; for a bf16 B, pairs of them

  auto operator<=>(const GemmShape&) const = default;
};

// C (m × n, fp32) = A (m × k) · B (k × n), added to what C holds if `add`. For bf16, B holds pairs of its rows
// interleaved (VNNI): [k / 2][n][2], and k is even. Each shape that is new takes time to compile: use few. Throws
// std::bad_alloc where there is no memory for that.
void Brgemm(const GemmShape& shape, bool add, const Bf16* a, const Bf16* b, float* c);
void Brgemm(const GemmShape& shape, bool add, const float* a, const float* b, float* c);

// Whether there is one for bf16 (oneDNN has it from avx512_bf16 on, and ONEDNN_MAX_CPU_ISA may forbid it).
bool HasBf16Brgemm();

// To be called by a thread that has no more products to compute for now: gives back the matrix unit's registers.
void ReleaseBrgemm();

}  // namespace temper::ops::cpu
