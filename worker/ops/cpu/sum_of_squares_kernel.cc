// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/sum_of_squares_kernel.h"

#include "worker/ops/cpu/simd.h"

namespace temper::ops::cpu::TEMPER_ISA {
namespace {

constexpr int64_t kRun = 4096;

double SumOf(const float* x, int64_t size) {
  double sum = 0;
  for (int64_t begin = 0; begin < size; begin += kRun) {
    const int64_t end = Smaller(begin + kRun, size);
    // Four sums, so that none waits for the one before.
    Floats parts[4] = {};
    int64_t i = begin;
    for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
      for (int64_t part = 0; part < 4; ++part) {
        const Floats value = Load(x + i + part * kLanes);
        parts[part] += value * value;
      }
    }
    for (; i < end; i += kLanes) {
      const Floats value = LoadSome(x + i, Smaller(kLanes, end - i));
      parts[0] += value * value;
    }
    sum += Sum(parts[0] + parts[1] + (parts[2] + parts[3]));
  }
  return sum;
}

}  // namespace

const SumOfSquaresKernels kSumOfSquares = {SumOf};

}  // namespace temper::ops::cpu::TEMPER_ISA
