// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace temper {

// What a decoder is made of. Families fill it in from config.json; the model is built from it alone. Every mechanism is
// a field here, and no code may ask which family it came from.

// How rotary position embeddings (Su et al. 2021) turn positions into angles.
struct RopeConfig {
  enum class Kind {
    kDefault,  // theta^(-2i/d)
    kLinear,   // positions divided by `factor`
    kLlama3,   // long wavelengths divided by `factor`, short ones kept, a ramp between (Llama 3.1)
    kDynamic,  // theta grows with a document that is longer than original_max_positions (NTK)
    kYarn,     // Peng et al. 2023
  };
  Kind kind = Kind::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  // Positions that the model saw before its context was extended.
  int64_t original_max_positions = 0;
  // kLlama3: wavelengths over original/low are scaled, below original/high kept.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // kYarn.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double attention_factor = 1.0;  // cos and sin are multiplied by it
  bool truncate = true;           // round the ramp's ends to whole dimensions
};

struct AttentionConfig {
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  // Scores are multiplied by it before the softmax.
  double scale = 0.0;
  bool qkv_bias = false;
  bool output_bias = false;
  RopeConfig rope;
};

// Gated feed-forward layer: down(activation(gate(x)) * up(x)).
struct FeedForwardConfig {
  enum class Activation { kSilu, kGeluTanh, kGelu };
  int64_t intermediate_size = 0;
  Activation activation = Activation::kSilu;
  bool bias = false;
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
};

}  // namespace temper
