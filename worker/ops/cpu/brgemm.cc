// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/brgemm.h"

#include <ATen/native/CPUBlas.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <new>
#include <set>
#include <tuple>

namespace temper::ops::cpu {
namespace {

// More than oneDNN takes to compile a product.
constexpr size_t kCompileBytes = 4 << 20;

// To be called before a product. ATen has oneDNN compile one of a new shape, and when there is no memory for that, it
// destroys the kernel that was never made: a null pointer, and the end of the process.
void MakeSureThatItCompiles(const GemmShape& shape, bool bf16, bool add) {
  using Product = std::tuple<GemmShape, bool, bool>;
  thread_local std::set<Product> compiled;
  thread_local Product newest;
  const Product product(shape, bf16, add);
  if (product == newest && !compiled.empty()) return;
  if (!compiled.contains(product)) {
    void* const room =
        mmap(nullptr, kCompileBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, /*fd=*/-1, /*offset=*/0);
    if (room == MAP_FAILED) throw std::bad_alloc();
    munmap(room, kCompileBytes);
    compiled.insert(product);
  }
  newest = product;
}

}  // namespace

void Brgemm(const GemmShape& s, bool add, const Bf16* a, const Bf16* b, float* c) {
  MakeSureThatItCompiles(s, /*bf16=*/true, add);
  at::native::cpublas::brgemm(s.m, s.n, s.k, s.lda, s.ldb, s.ldc, add, reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c, /*is_vnni=*/true);
}

void Brgemm(const GemmShape& s, bool add, const float* a, const float* b, float* c) {
  MakeSureThatItCompiles(s, /*bf16=*/false, add);
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
