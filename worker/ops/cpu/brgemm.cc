// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/brgemm.h"

#include <ATen/native/CPUBlas.h>
#include <c10/util/Exception.h>

namespace temper::ops::cpu {

void Brgemm(const GemmShape& s, bool add, const Bf16* a, const Bf16* b, float* c) {
  at::native::cpublas::brgemm(s.m, s.n, s.k, s.lda, s.ldb, s.ldc, add, reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c, /*is_vnni=*/true);
}

void Brgemm(const GemmShape& s, bool add, const float* a, const float* b, float* c) {
  at::native::cpublas::brgemm(s.m, s.n, s.k, s.lda, s.ldb, s.ldc, add, a, b, c, /*is_vnni=*/false);
}

bool HasBf16Brgemm() {
  static const bool has = [] {
    const Bf16 zeros[32 * 32] = {};
    float product[32 * 32];
    try {
      Brgemm({32, 32, 32, 32, 32, 32}, /*add=*/false, zeros, zeros, product);
      ReleaseBrgemm();
      return true;
    } catch (const c10::Error&) {
      return false;
    }
  }();
  return has;
}

void ReleaseBrgemm() { at::native::cpublas::brgemm_release(/*is_vnni=*/true); }

}  // namespace temper::ops::cpu
