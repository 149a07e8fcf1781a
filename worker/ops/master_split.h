// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define TEMPER_ON_EVERY_DEVICE __host__ __device__
#else
#define TEMPER_ON_EVERY_DEVICE
#endif

namespace temper::ops {

// A fp32 master value as a bf16 part and a signed 16-bit low part: bits(master) = (high << 16) + low.
//
// `high` is always the master rounded to nearest even, which is what the model computes with and what an export to bf16
// holds. That costs one value in 131,072: above an even `high` there are 2^15 values that round down to it, the last
// being the tie at +0x8000, and a signed 16-bit number ends at +0x7fff. (Above an odd one the tie rounds up, to
// −0x8000, which fits.) Such a master is moved by one fp32 unit in the last place, away from the tie; every other value
// comes back exactly. Values that came from bf16 have low = 0; those that came from fp16 are ties more often (one in
// 16), but a moved one still rounds back to its fp16. NaN stays NaN, infinities and −0 stay what they are.
//
// Always inlined, because kernels of different instruction sets use it (worker/ops/cpu/simd.h), and GPU kernels too.
struct MasterSplit {
  uint16_t high;  // bits of a bfloat16
  int16_t low;
};

[[gnu::always_inline]] TEMPER_ON_EVERY_DEVICE inline MasterSplit SplitMaster(float master) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, master);
  // A NaN with a small payload would round to infinity.
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x0040u), 0};
  const uint32_t high = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const int32_t low = static_cast<int32_t>(bits - (high << 16));
  return {static_cast<uint16_t>(high), static_cast<int16_t>(low == 0x8000 ? 0x7fff : low)};
}

[[gnu::always_inline]] TEMPER_ON_EVERY_DEVICE inline float JoinMaster(MasterSplit split) {
  return __builtin_bit_cast(float,
                            (static_cast<uint32_t>(split.high) << 16) + static_cast<uint32_t>(int32_t{split.low}));
}

}  // namespace temper::ops
