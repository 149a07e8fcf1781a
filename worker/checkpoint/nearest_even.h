// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace temper {

// IEEE 754 round-to-nearest-even from fp32, as bits. Written from the definition and used by the proof alone: it must
// not be the code that it checks. A NaN gives some quiet NaN.

inline uint16_t NearestEvenBfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return 0x7fc0;
  const uint32_t kept = bits >> 16;
  const uint32_t rest = bits & 0xffffu;
  const bool up = rest > 0x8000u || (rest == 0x8000u && (kept & 1u) != 0);
  return static_cast<uint16_t>(kept +
                               (up ? 1 : 0));  // a carry goes into the exponent, and from the largest to infinity
}

inline uint16_t NearestEvenHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  if (std::isnan(value)) return 0x7e00;
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520.0f) return sign | 0x7c00;  // halfway between the largest half and the next power of two
  // Halves below 2^-14 are multiples of 2^-24; 1024 of them is the smallest normal half, whose bits follow on.
  if (magnitude < 0x1p-14f) return sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f));
  const uint32_t normal = (bits & 0x7fffffffu) - (112u << 23);  // the exponent's bias is 127 here, 15 there
  const uint32_t kept = normal >> 13;
  const uint32_t rest = normal & 0x1fffu;
  const bool up = rest > 0x1000u || (rest == 0x1000u && (kept & 1u) != 0);
  return sign | static_cast<uint16_t>(kept + (up ? 1 : 0));
}

}  // namespace temper
