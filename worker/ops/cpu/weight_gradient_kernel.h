// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "worker/ops/cpu/bf16.h"

namespace temper::ops::cpu {

// Tiles of a weight's gradient gradᵀ·x, and the tokens that one product sums over. Fixed, so that few products are
// compiled and sums don't depend on the number of threads.
inline constexpr int64_t kGradientRows = 128, kGradientColumns = 512, kGradientTokens = 256;
// Tokens are padded with zeros to a multiple of this many.
inline constexpr int64_t kTokenGrain = 64;

// to += gradᵀ·x, all in bf16 but `to`. Legend: T tokens, padded; O outputs, I inputs.
struct WeightGradient {
  int64_t tokens = 0, padded = 0;  // T is `padded`
  int64_t outputs = 0, inputs = 0;
  const Bf16 *grad = nullptr, *x = nullptr;
  int64_t grad_stride = 0, x_stride = 0;  // from token to token
  Bf16* grad_left = nullptr;              // O × T: gradᵀ, as the left operand
  Bf16* x_right = nullptr;                // T × I: x, as the right operand
  float* to_OI = nullptr;
};

// Operands are packed slice by slice, then tiles are summed; slices and tiles are independent of each other.
struct WeightGradientKernels {
  // Outputs [begin, begin + kGradientRows). `work`: T · kGradientRows numbers.
  void (*pack_grad)(const WeightGradient& gradient, int64_t begin, Bf16* work);
  // Tokens [begin, begin + kTokenGrain).
  void (*pack_x)(const WeightGradient& gradient, int64_t begin);
  // The tile at (row, column).
  void (*add_tile)(const WeightGradient& gradient, int64_t row, int64_t column);
};

namespace avx2 {
extern const WeightGradientKernels kWeightGradient;
}
namespace avx512 {
extern const WeightGradientKernels kWeightGradient;
}

}  // namespace temper::ops::cpu
