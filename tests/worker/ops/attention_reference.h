// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <limits>
#include <vector>

#include "worker/ops/attention_config.h"

namespace temper::ops {

// Attention by its definition: one T × T matrix of scores with the mask written out. in: q_THd, k_TKd, v_TKd, and
// sinks_H if there are any.
inline at::Tensor ReferenceAttention(const std::vector<at::Tensor>& in, const std::vector<int64_t>& document_starts,
                                     const ScoreConfig& config) {
  const int64_t tokens = in[0].size(0), heads = in[0].size(1), group = heads / in[1].size(1);
  const auto device = in[0].device();
  at::Tensor document_T = at::zeros({tokens}, at::kLong);
  for (size_t i = 1; i + 1 < document_starts.size(); ++i) document_T.slice(0, document_starts[i]) += 1;
  at::Tensor visible =
      document_T.unsqueeze(1).eq(document_T.unsqueeze(0)).logical_and(at::ones({tokens, tokens}, at::kBool).tril());
  if (config.window > 0) visible = visible.logical_and(at::ones({tokens, tokens}, at::kBool).triu(1 - config.window));
  const at::Tensor k = in[1].repeat_interleave(group, 1), v = in[2].repeat_interleave(group, 1);
  at::Tensor scores = at::einsum("thd,shd->hts", {in[0], k}) * config.scale;
  if (config.softcap > 0) scores = (scores / config.softcap).tanh() * config.softcap;
  scores = scores.masked_fill(visible.logical_not().to(device), -std::numeric_limits<double>::infinity());
  if (in.size() > 3) scores = at::cat({scores, in[3].view({heads, 1, 1}).expand({heads, tokens, 1})}, -1);
  return at::einsum("hts,shd->thd", {scores.softmax(-1).narrow(-1, 0, tokens), v});
}

}  // namespace temper::ops
