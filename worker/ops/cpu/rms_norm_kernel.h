// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace temper::ops::cpu {

// The widest row that can be rotated.
inline constexpr int64_t kMaxRotatedWidth = 512;

// Rows of an RMS norm, all of one dtype; statistics are fp32. A call handles rows [begin, end). Rows are those of
// tokens, or of each token's heads; all but x stand densely.
struct RmsNormRows {
  bool bf16 = false;
  int64_t width = 0;
  const void *x = nullptr, *weight = nullptr;
  int64_t heads = 1;                          // of a token
  int64_t token_stride = 0, head_stride = 0;  // of x, in elements
  // Where what is normed is a sum: what x is added to, and the sum, which forward writes; both null otherwise.
  const void* update = nullptr;
  void* sum = nullptr;
  float epsilon = 0, weight_offset = 0;
  bool rounds_twice = false;  // x / rms is rounded before it is multiplied with the weight
  // Where what is normed is rotated then: the angles of each token, [tokens, half]; half is 0 otherwise.
  const float *cos = nullptr, *sin = nullptr;
  int64_t half = 0;
  void* y = nullptr;       // forward writes it
  float* scale = nullptr;  // 1 / rms of each row: forward writes it, backward reads it
  // Backward alone, where `x` is what was normed. `grad_sum` may be null: what is added to the gradient of it, for it
  // has other readers. Either of the gradients that are written may be null.
  const void *grad_y = nullptr, *grad_sum = nullptr;
  void* grad_x = nullptr;
  float* grad_weight = nullptr;  // [width]: what these rows add up to
};

struct RmsNormKernels {
  void (*forward)(const RmsNormRows& rows, int64_t begin, int64_t end);
  void (*backward)(const RmsNormRows& rows, int64_t begin, int64_t end);
};

namespace avx2 {
extern const RmsNormKernels kRmsNorm;
}
namespace avx512 {
extern const RmsNormKernels kRmsNorm;
}

}  // namespace temper::ops::cpu
