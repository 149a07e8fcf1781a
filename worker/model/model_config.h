// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "worker/ops/activation.h"
#include "worker/ops/attention_config.h"
#include "worker/ops/logit_config.h"
#include "worker/ops/norm_config.h"
#include "worker/ops/rope_config.h"

namespace temper {

// What a decoder is made of. Families fill it in from config.json; the model is built from it alone. Every mechanism is
// a field here, and no code may ask which family it came from.

using ops::LogitConfig;
using ops::NormConfig;
using ops::RopeConfig;

// Norms of queries and keys, before they are rotated.
enum class QkNorm {
  kNone,
  kPerHead,    // one weight of head_dim for all heads
  kFullWidth,  // over all heads at once
};

struct AttentionConfig {
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  // Scores are multiplied by it before the softmax.
  double scale = 0.0;
  // Above 0: then softcap · tanh(score / softcap).
  double softcap = 0.0;
  bool qkv_bias = false;
  bool output_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  // A learned score a head that takes part in every softmax.
  bool sinks = false;

  bool operator==(const AttentionConfig&) const = default;
};

// Gated feed-forward layer: down(activation(gate(x)) * up(x)).
struct FeedForwardConfig {
  using Activation = ops::Activation;
  int64_t intermediate_size = 0;
  Activation activation = Activation::kSilu;
  bool bias = false;

  bool operator==(const FeedForwardConfig&) const = default;
};

// Mixture of experts: gated feed-forward layers of one shape, of which each token goes through a few.
struct MoeConfig {
  int64_t num_experts = 0;
  int64_t top_k = 0;  // experts of a token
  int64_t intermediate_size = 0;
  ops::Activation activation = ops::Activation::kSilu;
  // A token's weights are the softmax over its chosen experts' scores, or over all scores and then, if normalized,
  // divided by their sum.
  bool softmax_over_chosen = false;
  bool normalized = true;
  bool bias = false;  // of the router and of the experts
  // Above 0: how much of the loss is for using experts evenly (Fedus et al. 2021, eq. 4–6).
  double balance_coefficient = 0.0;

  bool operator==(const MoeConfig&) const = default;
};

inline constexpr int kNoRope = -1;

// What layers of one model may differ in.
struct LayerConfig {
  // Above 0: a query sees this many keys, itself included.
  int64_t window = 0;
  // Which of ModelConfig::ropes turns queries and keys, or kNoRope.
  int rope = 0;
  // The feed-forward layer is ModelConfig::moe.
  bool experts = false;

  bool operator==(const LayerConfig&) const = default;
};

struct ModelConfig {
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  // Rows of the embedding on disk. In memory they are padded to a multiple of 64.
  int64_t vocab_size = 0;
  int64_t max_positions = 0;
  // The LM head is the embedding's own matrix.
  bool tied_head = false;
  // In place of the LM head stands one number a row. A document's is that of its last token other than `pad_token`
  // (below 0: of its last one).
  bool score_head = false;
  int64_t pad_token = -1;
  NormConfig norm;
  // x + attention(norm(x)), x + norm(attention(x)) or both; the same around the feed-forward layer.
  bool pre_norm = true;
  bool post_norm = false;
  // Embeddings are multiplied by it, and what each half of a block adds.
  double embedding_scale = 1.0;
  double residual_scale = 1.0;
  AttentionConfig attention;
  FeedForwardConfig feed_forward;
  MoeConfig moe;
  LogitConfig logits;
  std::vector<RopeConfig> ropes = {RopeConfig{}};
  // One a layer, or none: all are alike.
  std::vector<LayerConfig> layers;

  // Inner dimensions of the feed-forward layers that a token goes through in one block, where they are most.
  int64_t widest_feed_forward() const {
    return std::max(feed_forward.intermediate_size, moe.top_k * moe.intermediate_size);
  }
  // Of the head's matrix.
  int64_t head_rows() const { return score_head ? 1 : vocab_size; }
  LayerConfig layer(int64_t index) const { return layers.empty() ? LayerConfig{} : layers[index]; }

  bool operator==(const ModelConfig&) const = default;
};

}  // namespace temper
