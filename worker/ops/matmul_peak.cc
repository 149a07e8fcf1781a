// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/matmul_peak.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

namespace temper::ops {

double MeasureMatmulPeak(at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  constexpr int64_t kSize = 1024;
  const at::Tensor a = at::ones({kSize, kSize}, dtype);
  const at::Tensor b = at::ones({kSize, kSize}, dtype);
  at::Tensor out = at::empty({kSize, kSize}, dtype);
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::milliseconds(300);
  double best_seconds = 1e9;
  at::mm_out(out, a, b);  // the first run allocates and creates kernels
  do {
    const auto begin = Clock::now();
    at::mm_out(out, a, b);
    best_seconds = std::min(best_seconds, std::chrono::duration<double>(Clock::now() - begin).count());
  } while (Clock::now() < deadline);
  return 2.0 * kSize * kSize * kSize / best_seconds;
}

bool CpuHasNativeBf16() { return __builtin_cpu_supports("avx512bf16"); }

}  // namespace temper::ops
