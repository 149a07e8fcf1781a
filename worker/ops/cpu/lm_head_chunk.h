// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "worker/ops/cpu/instruction_set.h"

namespace temper::ops::cpu {

// Rows of the vocabulary whose logits are computed at a time, and those whose part of ∂loss/∂hidden is summed before
// the parts are added up. Both are fixed, so that sums don't depend on the number of threads.
inline constexpr int64_t kVocabTile = 128;
inline constexpr int64_t kVocabSlices = 16;
// A chunk's rows are padded to a multiple of this many.
inline constexpr int64_t kLmHeadRows = 64;

// A chunk of scored rows on their way through the LM head. Logits are kept transposed: [vocabulary][rows].
//
// Legend: C rows of the chunk, padded; D hidden; V vocabulary with padding.
struct LmHeadChunk {
  bool bf16 = false;
  int64_t rows = 0;        // scored rows
  int64_t padded = 0;      // C
  int64_t width = 0;       // D, even
  int64_t vocab_rows = 0;  // V, even
  int64_t vocab_size = 0;  // rows from here on are padding
  const void* weight_VD = nullptr;
  // The hidden rows as right operands of Brgemm (PackLmHeadRows), zeros in the padding.
  void* hidden_right = nullptr;             // C × D
  void* hidden_transposed_right = nullptr;  // D × C
  const int32_t* targets_C = nullptr;       // −1 in the padding
  float scale = 1;
  float softcap = 0;  // 0: none

  // What forward writes: the logits; of each tile and row the largest (times log₂e), the sum of 2^(logit·log₂e −
  // largest) and, if wanted, the sum of the logits; each target's logit.
  float* logits_VC = nullptr;                                           // null: not kept
  float *maximum = nullptr, *exponentials = nullptr, *total = nullptr;  // [tiles][C]; total may be null
  float* target_logit_C = nullptr;

  float* logsumexp_C = nullptr;   // what CombineTiles writes
  float* mean_logit_C = nullptr;  // likewise, over the vocabulary; null without `total`

  // What backward reads: ∂loss/∂logit of a row is softmax_factor · softmax − uniform + (coefficient at its target).
  const float *coefficient_C = nullptr, *softmax_factor_C = nullptr;
  float uniform = 0;
  // … and writes.
  float* grad_hidden_slices = nullptr;  // [kVocabSlices][D][C]
  float* grad_weight_VD = nullptr;      // added to; null: frozen

  int64_t tiles() const { return (vocab_rows + kVocabTile - 1) / kVocabTile; }
};

struct LmHeadKernels {
  void (*pack_rows)(const LmHeadChunk& chunk, const void* hidden_SD, int64_t stride);
  void (*forward_tile)(const LmHeadChunk& chunk, int64_t tile, float* scratch);  // kVocabTile · C numbers
  void (*combine_tiles)(const LmHeadChunk& chunk);
  void (*backward_slice)(const LmHeadChunk& chunk, int64_t slice, char* scratch);
  int64_t (*backward_scratch)(const LmHeadChunk& chunk);  // bytes
  // Sums the slices' parts of kLmHeadRows rows from `begin` on, into the dtype of the hidden rows.
  void (*store_grad_hidden)(const LmHeadChunk& chunk, int64_t begin, void* grad_hidden_SD, int64_t stride);
};

namespace avx2 {
extern const LmHeadKernels kLmHead;
}
namespace avx512 {
extern const LmHeadKernels kLmHead;
}

}  // namespace temper::ops::cpu
