// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "worker/data/teacher_tokens.h"

namespace temper {

// Documents packed one after another into one row of T tokens. Attention never crosses a document's border.
//
// Of pairs, documents 2p and 2p + 1 are the chosen and the rejected answer of pair p, each behind the prompt.
//
// There is no padding: T is the number of tokens, at most `capacity`.
struct MicroBatch {
  std::vector<int64_t> tokens_T;
  // The token that follows in the same document; 0 at a document's last token, where none is to be predicted.
  std::vector<int64_t> targets_T;
  // Position inside the document, from 0.
  std::vector<int64_t> positions_T;
  // 1 where the loss looks: at targets_T, or, of a reward model, at what it makes of the document so far.
  std::vector<uint8_t> loss_mask_T;
  // Where the data has them: log-probabilities of the scored targets under a reference, one of each, in their order.
  std::vector<float> reference_S;
  // Where the data has it: what a teacher has said of the scored targets, a row of each, in their order.
  TeacherTokens teacher = {};
  // Where each document begins, and T at the end: documents + 1 entries (`cu_seqlens` elsewhere).
  std::vector<int64_t> document_starts;
  // Tokens that the row had room for.
  int64_t capacity = 0;

  int64_t num_tokens() const { return static_cast<int64_t>(tokens_T.size()); }
};

}  // namespace temper
