// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "worker/ops/activation.h"
#include "worker/ops/rope_config.h"

namespace temper {

// What a decoder is made of. Families fill it in from config.json; the model is built from it alone. Every mechanism is
// a field here, and no code may ask which family it came from.

using ops::RopeConfig;

struct AttentionConfig {
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  // Scores are multiplied by it before the softmax.
  double scale = 0.0;
  bool qkv_bias = false;
  bool output_bias = false;
  RopeConfig rope;

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

struct ModelConfig {
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  // Rows of the embedding on disk. In memory they are padded to a multiple of 64.
  int64_t vocab_size = 0;
  int64_t max_positions = 0;
  double norm_epsilon = 1e-5;
  // The LM head is the embedding's own matrix.
  bool tied_head = false;
  AttentionConfig attention;
  FeedForwardConfig feed_forward;

  bool operator==(const ModelConfig&) const = default;
};

}  // namespace temper
