// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/ops/cpu/simd.h"

// Operands of Brgemm from matrices of rows. fp32 ones stand as they are; in a bf16 one that is the right operand, pairs
// of rows are interleaved: a word holds two numbers of a column.

namespace temper::ops::cpu::TEMPER_ISA {

// A matrix of `rows` rows, `stride` numbers apart.
template <typename Element>
struct Rows {
  const Element* data;
  int64_t stride;

  const Element* row(int64_t index) const { return data + index * stride; }
};

// to[c][r] = from[r][c] for words; `to` is `padded` wide and the columns from `rows` on are zero.
inline void TransposeWords(const uint32_t* from, int64_t from_stride, int64_t rows, int64_t columns, uint32_t* to,
                           int64_t padded) {
  for (int64_t r = 0; r < padded; r += kLanes) {
    const int64_t height = Larger(0, Smaller(kLanes, rows - r));
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      Words tile[kLanes] = {};
      for (int64_t i = 0; i < height; ++i) __builtin_memcpy(&tile[i], from + (r + i) * from_stride + c, sizeof(Words));
      Transpose(tile);
      for (int64_t i = 0; i < kLanes; ++i) __builtin_memcpy(to + (c + i) * padded + r, &tile[i], sizeof(Words));
    }
    for (; c < columns; ++c) {
      for (int64_t i = 0; i < kLanes; ++i) {
        uint32_t word = 0;
        if (i < height) __builtin_memcpy(&word, from + (r + i) * from_stride + c, sizeof(word));
        to[c * padded + r + i] = word;
      }
    }
  }
}

// The right operand X: `rows` rows of `width`, `padded` of them (a multiple of kLanes) with zeros at the end.
inline void PackRight(Rows<float> x, int64_t rows, int64_t width, int64_t padded, float* to) {
  for (int64_t r = 0; r < padded; ++r) {
    for (int64_t c = 0; c < width; ++c) to[r * width + c] = r < rows ? x.row(r)[c] : 0.0f;
  }
}

inline void PackRight(Rows<Bf16> x, int64_t rows, int64_t width, int64_t padded, Bf16* to) {
  for (int64_t r = 0; r < padded; r += 2) {
    Bf16* pairs = to + r * width;
    int64_t c = 0;
    for (; r + 1 < rows && c + kLanes <= width; c += kLanes) {
      const Words low = LoadWords(x.row(r) + c), high = LoadWords(x.row(r + 1) + c);
      const Words pair = low | high << 16;
      __builtin_memcpy(pairs + 2 * c, &pair, sizeof(pair));
    }
    for (; c < width; ++c) {
      pairs[2 * c] = r < rows ? x.row(r)[c] : Bf16{};
      pairs[2 * c + 1] = r + 1 < rows ? x.row(r + 1)[c] : Bf16{};
    }
  }
}

// The right operand Xᵀ: width × padded.
inline void PackRightTransposed(Rows<float> x, int64_t rows, int64_t width, int64_t padded, float* to) {
  TransposeWords(reinterpret_cast<const uint32_t*>(x.data), x.stride, rows, width, reinterpret_cast<uint32_t*>(to),
                 padded);
}

inline void PackRightTransposed(Rows<Bf16> x, int64_t rows, int64_t width, int64_t padded, Bf16* to) {
  TransposeWords(reinterpret_cast<const uint32_t*>(x.data), x.stride / 2, rows, width / 2,
                 reinterpret_cast<uint32_t*>(to), padded);
}

// The left operand Xᵀ: width × padded. `work`: room for X as a right operand.
inline void PackLeftTransposed(Rows<float> x, int64_t rows, int64_t width, int64_t padded, float* to, float* work) {
  PackRightTransposed(x, rows, width, padded, to);
}

inline void PackLeftTransposed(Rows<Bf16> x, int64_t rows, int64_t width, int64_t padded, Bf16* to, Bf16* work) {
  PackRight(x, rows, width, padded, work);
  TransposeWords(reinterpret_cast<const uint32_t*>(work), width, padded / 2, width, reinterpret_cast<uint32_t*>(to),
                 padded / 2);
}

}  // namespace temper::ops::cpu::TEMPER_ISA
