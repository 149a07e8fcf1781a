// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/matmul_peak.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

namespace temper::ops {

namespace {

using Clock = std::chrono::steady_clock;

// Seconds of the fastest product of two n × n matrices within `duration`; at least one is timed after a first one,
// which allocates and creates kernels.
double FastestProduct(int64_t n, at::ScalarType dtype, std::chrono::milliseconds duration) {
  const at::Tensor a = at::ones({n, n}, dtype);
  const at::Tensor b = at::ones({n, n}, dtype);
  at::Tensor out = at::empty({n, n}, dtype);
  at::mm_out(out, a, b);
  double best_seconds = 1e9;
  const auto deadline = Clock::now() + duration;
  do {
    const auto begin = Clock::now();
    at::mm_out(out, a, b);
    best_seconds = std::min(best_seconds, std::chrono::duration<double>(Clock::now() - begin).count());
  } while (Clock::now() < deadline);
  return best_seconds;
}

}  // namespace

double MeasureMatmulPeak(at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  // Where there are no instructions for a dtype, a large product takes seconds and is no faster than a small one.
  constexpr int64_t kSmall = 256;
  constexpr int64_t kLarge = 1024;
  constexpr double kTooSlow = 0.01;
  const bool slow = FastestProduct(kSmall, dtype, std::chrono::milliseconds(0)) > kTooSlow;
  const int64_t n = slow ? kSmall : kLarge;
  const auto size = static_cast<double>(n);
  return 2.0 * size * size * size / FastestProduct(n, dtype, std::chrono::milliseconds(300));
}

bool CpuHasNativeBf16() { return __builtin_cpu_supports("avx512bf16"); }

}  // namespace temper::ops
