// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace temper::ops::cpu {

// Heads of some tokens, of one dtype. The first 2·half numbers of a head are rotated as worker/ops/rope.h says, the
// others copied.
struct RopeRows {
  bool bf16 = false;
  int64_t heads = 0, width = 0, half = 0;
  const void* x = nullptr;
  int64_t token_stride = 0, head_stride = 0;   // of x, in elements
  const float *cos = nullptr, *sin = nullptr;  // [tokens, half]
  float direction = 1;                         // −1: the gradient
  void* y = nullptr;                           // dense
};

struct RopeKernels {
  void (*rotate)(const RopeRows& rows, int64_t begin, int64_t end);  // tokens [begin, end)
};

namespace avx2 {
extern const RopeKernels kRope;
}
namespace avx512 {
extern const RopeKernels kRope;
}

}  // namespace temper::ops::cpu
