// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/sum_of_squares.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "worker/ops/cpu/instruction_set.h"
#include "worker/ops/cpu/operators.h"
#include "worker/ops/cpu/sum_of_squares_kernel.h"

namespace temper::ops::cpu {
namespace {

// Numbers whose squares are summed before the sums are: fixed, so that the sum does not depend on the number of
// threads.
constexpr int64_t kPart = 1 << 16;

}  // namespace

bool CanSumOfSquares(const at::Tensor& x) {
  return Kernels() != InstructionSet::kNone && x.is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous();
}

at::Tensor SumOfSquares(const at::Tensor& x) {
  const auto& kernels = Choose(avx2::kSumOfSquares, avx512::kSumOfSquares);
  const float* const from = x.const_data_ptr<float>();
  std::vector<double> parts((x.numel() + kPart - 1) / kPart);
  at::parallel_for(0, static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      parts[i] = kernels.sum(from + i * kPart, std::min(kPart, x.numel() - i * kPart));
    }
  });
  return at::scalar_tensor(std::accumulate(parts.begin(), parts.end(), 0.0), at::kDouble);
}

}  // namespace temper::ops::cpu
