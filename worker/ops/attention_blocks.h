// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <vector>

// Attention one block of queries at a time: what such an implementation iterates over and how it lays out its operands.
//
// Legend: T tokens of the batch, S keys of a block, B queries of a block, H query heads, K key/value heads, G = H / K
// heads that share a key, d head width. Head-major layouts (K first) make one batched GEMM of all heads.

namespace temper::ops {

// Scores of one block are K·G·kQueriesPerBlock·S numbers: long documents cost memory linear in their length.
inline constexpr int64_t kQueriesPerBlock = 512;

// Queries [begin, end) of a document: they see keys from `start` on, the document's first or as far as a window
// reaches.
struct Block {
  int64_t start;
  int64_t begin;
  int64_t end;
  int64_t queries() const { return end - begin; }
  int64_t keys() const { return end - start; }
};

template <typename Visit>
void ForEachBlock(const std::vector<int64_t>& document_starts, int64_t window, Visit visit) {
  for (size_t i = 0; i + 1 < document_starts.size(); ++i) {
    for (int64_t begin = document_starts[i]; begin < document_starts[i + 1]; begin += kQueriesPerBlock) {
      const int64_t start = window > 0 ? std::max(document_starts[i], begin - window + 1) : document_starts[i];
      visit(Block{start, begin, std::min(begin + kQueriesPerBlock, document_starts[i + 1])});
    }
  }
}

// Rows of the block's queries as [K, G·B, d].
inline at::Tensor QueryRows(const at::Tensor& x_THd, const Block& block, int64_t num_kv_heads) {
  const int64_t group = x_THd.size(1) / num_kv_heads;
  return x_THd.narrow(0, block.begin, block.queries())
      .view({block.queries(), num_kv_heads, group, x_THd.size(2)})
      .permute({1, 2, 0, 3})
      .reshape({num_kv_heads, group * block.queries(), x_THd.size(2)});
}

// The inverse of QueryRows, into x_THd.
inline void StoreQueryRows(const at::Tensor& rows, const Block& block, int64_t num_kv_heads, at::Tensor& x_THd) {
  const int64_t group = x_THd.size(1) / num_kv_heads;
  x_THd.narrow(0, block.begin, block.queries())
      .view({block.queries(), num_kv_heads, group, x_THd.size(2)})
      .copy_(rows.view({num_kv_heads, group, block.queries(), x_THd.size(2)}).permute({2, 0, 1, 3}));
}

// The keys or values that a block sees, as [K, S, d].
inline at::Tensor KeyRows(const at::Tensor& x_TKd, const Block& block) {
  return x_TKd.narrow(0, block.start, block.keys()).transpose(0, 1);
}

}  // namespace temper::ops
