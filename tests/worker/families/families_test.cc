// SPDX-License-Identifier: Apache-2.0
#include "worker/families/families.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace temper {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// As the model's authors publish it.
Json SmolLm2() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false,
    "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
    "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
    "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "transformers_version": "4.42.3",
    "use_cache": true, "vocab_size": 49152})");
}

Json With(const char* changes) {
  Json config = SmolLm2();
  config.update(Json::parse(changes));
  return config;
}

absl::StatusOr<ModelConfig> Configure(const Json& config) {
  absl::StatusOr<const FamilySpec*> family = FindFamily(config);
  if (!family.ok()) return family.status();
  return ConfigureModel(**family, config);
}

TEST(Families, SmolLm2_IsUnderstoodWhole) {
  const absl::StatusOr<ModelConfig> model = Configure(SmolLm2());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->hidden_size, 576);
  EXPECT_EQ(model->num_layers, 30);
  EXPECT_EQ(model->vocab_size, 49152);
  EXPECT_EQ(model->max_positions, 8192);
  EXPECT_EQ(model->norm.epsilon, 1e-5);
  EXPECT_TRUE(model->tied_head);
  EXPECT_EQ(model->attention.num_heads, 9);
  EXPECT_EQ(model->attention.num_kv_heads, 3);
  EXPECT_EQ(model->attention.head_dim, 64);
  EXPECT_DOUBLE_EQ(model->attention.scale, 0.125);
  EXPECT_EQ(model->ropes[0].theta, 100000.0);
  EXPECT_EQ(model->feed_forward.intermediate_size, 1536);
}

TEST(Families, AbsentKeys_TakeTransformersDefaults) {
  Json config = SmolLm2();
  for (const char* key : {"num_key_value_heads", "tie_word_embeddings", "rms_norm_eps", "rope_theta",
                          "max_position_embeddings", "hidden_act", "attention_bias", "mlp_bias"}) {
    config.erase(key);
  }
  const absl::StatusOr<ModelConfig> model = Configure(config);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->attention.num_kv_heads, 9);
  EXPECT_FALSE(model->tied_head);
  EXPECT_EQ(model->norm.epsilon, 1e-6);
  EXPECT_EQ(model->ropes[0].theta, 10000.0);
  EXPECT_EQ(model->max_positions, 2048);
}

TEST(Families, GivenHeadDimAndBiases_AreTaken) {
  const ModelConfig model = *Configure(With(R"({"head_dim": 32, "attention_bias": true, "mlp_bias": true})"));
  EXPECT_EQ(model.attention.head_dim, 32);
  EXPECT_DOUBLE_EQ(model.attention.scale, 1 / std::sqrt(32.0));
  EXPECT_TRUE(model.attention.qkv_bias);
  EXPECT_TRUE(model.attention.output_bias);
  EXPECT_TRUE(model.feed_forward.bias);
}

TEST(Families, UnsupportedConfigs_AreRefusedWithTheReason) {
  struct Case {
    const char* changes;
    const char* message;
  };
  const Case cases[] = {
      {R"({"architectures": ["GPT2LMHeadModel"]})", "GPT2LMHeadModel is not supported. Supported: LlamaForCausalLM, "},
      {R"({"architectures": []})", "`architectures` must name"},
      {R"({"architectures": null})", "`architectures` must name"},
      {R"({"quantization_config": {"quant_method": "gptq", "bits": 4}})", "quantized with \"gptq\""},
      {R"({"hidden_act": "gelu"})", "`hidden_act` is \"gelu\"; only \"silu\" is supported"},
      {R"({"pretraining_tp": 2})", "`pretraining_tp` is 2; only 1"},
      {R"({"attention_dropout": 0.1})", "`attention_dropout` is 0.1"},
      {R"({"sliding_window": 4096})", "`sliding_window` (4096)"},
      {R"({"auto_map": {"AutoModelForCausalLM": "x.y"}})", "`auto_map`"},
      {R"({"hidden_size": "576"})", "`hidden_size` must be an integer"},
      {R"({"vocab_size": null})", "`vocab_size` is missing"},
      {R"({"num_key_value_heads": 2})", "cannot share 2 key-value heads"},
      {R"({"head_dim": 33})", "even head_dim, but it is 33"},
  };
  for (const Case& bad : cases) {
    const absl::Status status = Configure(With(bad.changes)).status();
    EXPECT_FALSE(status.ok()) << bad.changes;
    EXPECT_THAT(Message(status), HasSubstr("config.json")) << bad.changes;
    EXPECT_THAT(Message(status), HasSubstr(bad.message)) << bad.changes;
  }
}

}  // namespace
}  // namespace temper
