// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "worker/ops/cpu/bf16.h"

// As many numbers at a time as a register holds, in the compiler's own vector types.
//
// For kernels alone. Each is compiled once for every instruction set (CMakeLists.txt), in a namespace of its own: were
// an inline function compiled for AVX-512 shared with the rest of the program, the linker could take it for everybody.
// For the same reason kernels include no headers but these.

#ifndef TEMPER_ISA
#define TEMPER_ISA portable
#endif

#define TEMPER_INLINE inline __attribute__((always_inline))

namespace temper::ops::cpu::TEMPER_ISA {

#ifdef __AVX512F__
inline constexpr int64_t kLanes = 16;
#else
inline constexpr int64_t kLanes = 8;
#endif

using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));
using Words = uint32_t __attribute__((vector_size(4 * kLanes)));
using Halves = uint16_t __attribute__((vector_size(2 * kLanes)));

template <typename To, typename From>
TEMPER_INLINE To BitCast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

TEMPER_INLINE Floats Broadcast(float value) { return value - Floats{}; }
TEMPER_INLINE Ints Broadcast(int32_t value) { return value - Ints{}; }
// 0, 1, 2, …
TEMPER_INLINE Ints Iota() {
  Ints lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
  return lanes;
}

TEMPER_INLINE Floats Load(const float* from) {
  Floats value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

// Bits of bfloat16 in the lower half of each word.
TEMPER_INLINE Words LoadWords(const Bf16* from) {
  Halves bits;
  __builtin_memcpy(&bits, from, sizeof(bits));
  return __builtin_convertvector(bits, Words);
}

TEMPER_INLINE Floats Load(const Bf16* from) { return BitCast<Floats>(LoadWords(from) << 16); }

TEMPER_INLINE void Store(float* to, Floats value) { __builtin_memcpy(to, &value, sizeof(value)); }

// Bits of the nearest bfloat16, ties to even, in the upper half of each word. NaN stays NaN.
TEMPER_INLINE Words RoundedWords(Floats value) {
  const Words bits = BitCast<Words>(value);
  const Words rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  return value == value ? rounded : bits | 0x00400000u;
}

TEMPER_INLINE void Store(Bf16* to, Floats value) {
  const Halves bits = __builtin_convertvector(RoundedWords(value) >> 16, Halves);
  __builtin_memcpy(to, &bits, sizeof(bits));
}

// The first `count` of them, fewer than kLanes; the others are zero.
template <typename Element>
TEMPER_INLINE Floats LoadFirst(const Element* from, int64_t count) {
  Element padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = from[i];
  return Load(padded);
}

template <typename Element>
TEMPER_INLINE void StoreFirst(Element* to, Floats value, int64_t count) {
  Element padded[kLanes];
  Store(padded, value);
  for (int64_t i = 0; i < count; ++i) to[i] = padded[i];
}

// The first `count` of them, up to kLanes.
template <typename Element>
TEMPER_INLINE Floats LoadSome(const Element* from, int64_t count) {
  return count == kLanes ? Load(from) : LoadFirst(from, count);
}
template <typename Element>
TEMPER_INLINE void StoreSome(Element* to, Floats value, int64_t count) {
  count == kLanes ? Store(to, value) : StoreFirst(to, value, count);
}

// visit(i, count) of each vector in `size` elements: from i on, `count` of them.
template <typename Visit>
TEMPER_INLINE void ForEachVector(int64_t size, const Visit& visit) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) visit(i, kLanes);
  if (i < size) visit(i, size - i);
}

// NaN if `a` is.
TEMPER_INLINE Floats Max(Floats a, Floats b) { return a < b ? b : a; }
TEMPER_INLINE Floats Min(Floats a, Floats b) { return b < a ? b : a; }

// The sum of all lanes, halves to halves.
TEMPER_INLINE float Sum(Floats value) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) value[i] += value[i + half];
  }
  return value[0];
}

TEMPER_INLINE int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }
TEMPER_INLINE int64_t Larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Rows become columns.
#ifdef __AVX512F__
inline void Transpose(Words (&rows)[kLanes]) {
  // Step by step, rows that are `distance` apart exchange blocks of that many columns.
  const auto exchange = [&](int distance, Words first, Words second) __attribute__((always_inline)) {
    for (int i = 0; i < 16; ++i) {
      if ((i & distance) != 0) continue;
      const Words a = rows[i], b = rows[i + distance];
      rows[i] = __builtin_shuffle(a, b, first);
      rows[i + distance] = __builtin_shuffle(a, b, second);
    }
  };
  exchange(8, Words{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
           Words{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
  exchange(4, Words{0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
           Words{4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31});
  exchange(2, Words{0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
           Words{2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
  exchange(1, Words{0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30},
           Words{1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31});
}
#else
inline void Transpose(Words (&rows)[kLanes]) {
  uint32_t words[kLanes][kLanes];
  __builtin_memcpy(words, rows, sizeof(words));
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const uint32_t word = words[i][j];
      words[i][j] = words[j][i];
      words[j][i] = word;
    }
  }
  __builtin_memcpy(rows, words, sizeof(words));
}
#endif

// 2^x within 2e-7 of it; 0 from −127 down, and x below 128.
TEMPER_INLINE Floats Exp2(Floats x) {
  x = Max(x, Broadcast(-127.0f));
  // Adding 1.5 · 2^23 leaves the nearest whole number in the low bits.
  const Floats shifted = x + 12582912.0f;
  const Floats whole = shifted - 12582912.0f;
  const Ints exponent = BitCast<Ints>(shifted) - 0x4b400000;
  const Floats r = x - whole;
  // Taylor's series of 2^r, |r| ≤ 1/2.
  Floats p = r * 1.5403530393e-4f + 1.3333558146e-3f;
  p = p * r + 9.6181291076e-3f;
  p = p * r + 5.5504108665e-2f;
  p = p * r + 2.4022650696e-1f;
  p = p * r + 6.9314718056e-1f;
  p = p * r + 1.0f;
  return p * BitCast<Floats>((exponent + 127) << 23);
}

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2 = 0.693147180559945309f;

TEMPER_INLINE Floats Exp(Floats x) { return Exp2(x * kLog2E); }

TEMPER_INLINE Floats Sigmoid(Floats x) { return 1.0f / (1.0f + Exp2(Min(x * -kLog2E, Broadcast(126.0f)))); }

// Within 2e-7 of it in absolute terms.
TEMPER_INLINE Floats Tanh(Floats x) { return 1.0f - 2.0f / (1.0f + Exp2(Min(x * (2.0f * kLog2E), Broadcast(126.0f)))); }

}  // namespace temper::ops::cpu::TEMPER_ISA
