// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/ops/cpu/simd.h"

namespace temper::ops::cpu::TEMPER_ISA {

// The first 2·half numbers of a head rotated by +angle (direction 1) or −angle (−1: the gradient), the others copied.
template <typename From, typename To>
inline void RotateHead(const From* x, const float* cos, const float* sin, int64_t half, int64_t width, float direction,
                       To* y) {
  ForEachVector(half, [&](int64_t i, int64_t count) {
    const Floats c = LoadSome(cos + i, count), s = LoadSome(sin + i, count) * direction;
    const Floats first = LoadSome(x + i, count), second = LoadSome(x + half + i, count);
    StoreSome(y + i, first * c - second * s, count);
    StoreSome(y + half + i, second * c + first * s, count);
  });
  for (int64_t i = 2 * half; i < width; i += kLanes) {
    const int64_t count = Smaller(kLanes, width - i);
    StoreSome(y + i, LoadSome(x + i, count), count);
  }
}

}  // namespace temper::ops::cpu::TEMPER_ISA
