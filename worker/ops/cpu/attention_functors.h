// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "worker/ops/cpu/simd.h"

// What attention is put together from: a mask says which keys a query sees, a score turns q·k into what the softmax is
// of. AttentionKernel is compiled for a pair of them; another one is another functor.

namespace temper::ops::cpu::TEMPER_ISA {

enum class Visibility { kNone, kSome, kAll };

// Positions count from the document's start. A mask has
//   Visibility Of(first_query, last_query, first_key, last_key): whether a block, ends included, can be skipped, or
//     needs no mask; kSome is never wrong;
//   Ints Visible(queries, key): all bits of each query that sees the key, else none.
struct CausalMask {
  TEMPER_INLINE Visibility Of(int64_t first_query, int64_t last_query, int64_t first_key, int64_t last_key) const {
    if (first_key > last_query) return Visibility::kNone;
    return last_key <= first_query ? Visibility::kAll : Visibility::kSome;
  }
  TEMPER_INLINE Ints Visible(Ints queries, int32_t key) const { return queries >= key; }
};

// The query itself and the keys right before it, `window` of them.
struct CausalWindowMask {
  int64_t window;

  TEMPER_INLINE Visibility Of(int64_t first_query, int64_t last_query, int64_t first_key, int64_t last_key) const {
    if (last_key + window <= first_query) return Visibility::kNone;
    const bool reached = first_key + window > last_query;
    const Visibility causal = CausalMask{}.Of(first_query, last_query, first_key, last_key);
    return causal == Visibility::kAll && !reached ? Visibility::kSome : causal;
  }
  TEMPER_INLINE Ints Visible(Ints queries, int32_t key) const {
    return (queries >= key) & (queries < key + static_cast<int32_t>(window));
  }
};

// A score has
//   Floats Score(product);
//   Floats Slope(score): its derivative where it is `score`.
struct ScaledScore {
  float scale;

  TEMPER_INLINE Floats Score(Floats product) const { return product * scale; }
  TEMPER_INLINE Floats Slope(Floats) const { return Broadcast(scale); }
};

// softcap · tanh(scale · product / softcap).
struct SoftcappedScore {
  float scale;
  float softcap;

  TEMPER_INLINE Floats Score(Floats product) const { return Tanh(product * (scale / softcap)) * softcap; }
  TEMPER_INLINE Floats Slope(Floats score) const {
    const Floats ratio = score * (1.0f / softcap);
    return (1.0f - ratio * ratio) * scale;
  }
};

}  // namespace temper::ops::cpu::TEMPER_ISA
