// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace temper::ops::cpu {

struct SumOfSquaresKernels {
  // Of `size` numbers: in fp32 over runs of a few thousand, in fp64 over those.
  double (*sum)(const float* x, int64_t size);
};

namespace avx2 {
extern const SumOfSquaresKernels kSumOfSquares;
}
namespace avx512 {
extern const SumOfSquaresKernels kSumOfSquares;
}

}  // namespace temper::ops::cpu
