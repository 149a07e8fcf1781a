// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "worker/ops/cpu/instruction_set.h"

namespace temper::ops::cpu {

// Queries and keys of one block of scores.
inline constexpr int64_t kAttentionBlock = 64;

// One query head of one document. Elements are all fp32 or all bf16; strides count them from token to token, and each
// pointer is at the document's first token. Sums are fp32.
struct AttentionHead {
  int64_t length = 0;  // tokens
  int64_t width = 0;   // even
  bool bf16 = false;
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  void* out = nullptr;  // forward writes it, backward reads it
  const void* grad_out = nullptr;
  int64_t out_stride = 0;  // of grad_out, too
  // Of each query, to base 2 (private to these kernels); +∞ where it sees nothing. [length]
  float* logsumexp = nullptr;
  bool has_sink = false;
  float sink = 0;

  // Backward alone.
  float* delta = nullptr;  // [length], written: rowsum(dO ∘ O)
  void* grad_q = nullptr;
  int64_t grad_q_stride = 0;
  // What this head adds to the gradients of its keys and values.
  float *grad_k = nullptr, *grad_v = nullptr;
  int64_t grad_kv_stride = 0;
};

// Gradients of the query heads that share a key or value, which are summed into one of its own.
struct HeadGroups {
  int64_t kv_heads = 0, group = 0, width = 0;
  bool bf16 = false;            // `to`
  const float* grad = nullptr;  // [tokens][kv_heads][group][width]
  void* to = nullptr;           // [tokens][kv_heads][width]
};

struct AttentionScores {
  float scale = 1;
  float softcap = 0;   // 0: none
  int64_t window = 0;  // 0: none
};

// One of each for every instruction set (attention_kernel.cc). `scratch` has the bytes that the functions tell, aligned
// to 64. Queries [first, end): first is a multiple of kAttentionBlock.
struct AttentionKernels {
  void (*forward)(const AttentionHead& head, const AttentionScores& scores, int64_t first, int64_t end, char* scratch);
  void (*backward)(const AttentionHead& head, const AttentionScores& scores, char* scratch);
  int64_t (*forward_scratch)(int64_t length, int64_t width, bool bf16);
  int64_t (*backward_scratch)(int64_t length, int64_t width, bool bf16);
  void (*sum_groups)(const HeadGroups& groups, int64_t first_token, int64_t end_token);
};

namespace avx2 {
extern const AttentionKernels kAttention;
}
namespace avx512 {
extern const AttentionKernels kAttention;
}

}  // namespace temper::ops::cpu
