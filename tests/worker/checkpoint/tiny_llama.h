// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/worker/checkpoint/tiny_checkpoint.h"
#include "worker/checkpoint/native_model.h"

namespace temper {

// config.json of a Llama of one layer with a tied head.
inline std::string TinyLlamaConfig(int64_t vocabulary = 40) {
  return absl::StrCat(
      R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 24,
  "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
  "tie_word_embeddings": true, "vocab_size": )",
      vocabulary, "}");
}

inline NamedTensors TinyLlamaTensors(at::ScalarType dtype, int64_t vocabulary = 40) {
  at::manual_seed(5);
  const auto random = [&](std::vector<int64_t> shape) { return (at::randn(shape) * 0.5).to(dtype); };
  const std::string layer = "model.layers.0.";
  return {{"model.embed_tokens.weight", random({vocabulary, 16})},
          {layer + "input_layernorm.weight", random({16})},
          {layer + "self_attn.q_proj.weight", random({16, 16})},
          {layer + "self_attn.k_proj.weight", random({8, 16})},
          {layer + "self_attn.v_proj.weight", random({8, 16})},
          {layer + "self_attn.o_proj.weight", random({16, 16})},
          {layer + "post_attention_layernorm.weight", random({16})},
          {layer + "mlp.gate_proj.weight", random({24, 16})},
          {layer + "mlp.up_proj.weight", random({24, 16})},
          {layer + "mlp.down_proj.weight", random({16, 24})},
          {"model.norm.weight", random({16})}};
}

// Writes the model into `directory`, and opens it.
inline NativeRepository WriteTinyLlama(const std::filesystem::path& directory, at::ScalarType dtype,
                                       int64_t vocabulary = 40) {
  std::filesystem::create_directories(directory);
  WriteFile(directory / "config.json", TinyLlamaConfig(vocabulary));
  WriteFile(directory / "model.safetensors", SafetensorsBytes(TinyLlamaTensors(dtype, vocabulary)));
  return *OpenNativeRepository(directory.string());
}

}  // namespace temper
