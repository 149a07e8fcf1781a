// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/ops/attention_config.h"

namespace temper::ops {

// Causal attention inside each packed document, grouped queries (Ainslie et al. 2023) included.
//
// q_THd, k_TKd, v_TKd: T tokens, H query heads, K key/value heads (H a multiple of K), d wide; fp32 or bf16.
// document_starts: documents + 1 entries, from 0 to T. Scores go through ScoreConfig; softmax is fp32. sinks_H, if
// defined: a score a head that takes part in every softmax and has no value (fp32 or q's dtype; Xiao et al. 2023).
// Returns [T, H, d]. Differentiable; keeps q, k, v, the output and one number a row and head (its log-sum-exp), never
// the scores: backward computes them again, a block of queries at a time (Dao et al. 2022).
at::Tensor PackedAttention(const at::Tensor& q_THd, const at::Tensor& k_TKd, const at::Tensor& v_TKd,
                           const std::vector<int64_t>& document_starts, const ScoreConfig& config,
                           const at::Tensor& sinks_H = {});

// Pairs of query and key that the mask leaves: Σ s(s+1)/2 over documents of s tokens, and with a window w < s
// s·w − w(w−1)/2. What attention's FLOPs are counted from.
int64_t CountAttentionPairs(const std::vector<int64_t>& document_starts, int64_t window = 0);

}  // namespace temper::ops
