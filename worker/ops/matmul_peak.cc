// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/matmul_peak.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

#include "worker/ops/synchronize.h"

namespace temper::ops {

namespace {

using Clock = std::chrono::steady_clock;

// Seconds of the fastest product of two n × n matrices within `duration`; at least one is timed after a first one,
// which allocates and creates kernels.
double FastestProduct(int64_t n, const at::TensorOptions& options, std::chrono::milliseconds duration) {
  // All sorts of numbers, of no generator: a GPU draws less power on ones, and runs faster than it ever will.
  const at::Tensor a = at::arange(n * n, options.dtype(at::kFloat)).mul_(12.9898).sin_().view({n, n}).to(options);
  const at::Tensor b = a.t().contiguous();
  at::Tensor out = at::empty({n, n}, options);
  const auto multiply = [&] {
    at::mm_out(out, a, b);
    Synchronize(options.device());
  };
  multiply();
  double best_seconds = 1e9;
  const auto deadline = Clock::now() + duration;
  do {
    const auto begin = Clock::now();
    multiply();
    best_seconds = std::min(best_seconds, std::chrono::duration<double>(Clock::now() - begin).count());
  } while (Clock::now() < deadline);
  return best_seconds;
}

}  // namespace

double MeasureMatmulPeak(at::ScalarType dtype, at::Device device) {
  const at::NoGradGuard no_grad;
  const at::TensorOptions options = at::TensorOptions(device).dtype(dtype);
  // Where there are no instructions for a dtype, a large product takes seconds and is no faster than a small one.
  constexpr int64_t kSmall = 256;
  constexpr int64_t kLarge = 1024;
  constexpr int64_t kOfGpu = 8192;
  constexpr double kTooSlow = 0.01;
  const bool slow = FastestProduct(kSmall, options, std::chrono::milliseconds(0)) > kTooSlow;
  const int64_t n = !device.is_cpu() ? kOfGpu : slow ? kSmall : kLarge;
  const auto size = static_cast<double>(n);
  return 2.0 * size * size * size / FastestProduct(n, options, std::chrono::milliseconds(300));
}

bool CpuHasNativeBf16() { return __builtin_cpu_supports("avx512bf16"); }

}  // namespace temper::ops
