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

TEST(Families, RewardModel_IsALanguageModelWithAScore) {
  const Json config =
      With(R"({"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}, "pad_token_id": 2})");
  EXPECT_THAT(std::string(FindFamily(config).status().message()), HasSubstr("only method.reward trains it"));
  const auto family = FindRewardFamily(config);
  ASSERT_TRUE(family.ok()) << family.status();
  EXPECT_TRUE(IsRewardModel(**family, config));
  const auto model = ConfigureModel(**family, config);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->score_head);
  EXPECT_EQ(model->pad_token, 2);
  EXPECT_FALSE(model->tied_head);
  EXPECT_EQ(model->head_rows(), 1);
}

TEST(Families, RewardModel_OfALanguageModel_IsOfItsFamily) {
  const auto family = FindRewardFamily(SmolLm2());
  ASSERT_TRUE(family.ok()) << family.status();
  EXPECT_FALSE(IsRewardModel(**family, SmolLm2()));
  EXPECT_EQ((*family)->sequence_classifier, "LlamaForSequenceClassification");
}

TEST(Families, RewardModel_WithLabelsOrWithoutAClass_IsRefused) {
  const auto labels = [](const char* names) {
    Json config = With(R"({"architectures": ["LlamaForSequenceClassification"]})");
    if (*names != 0) config["id2label"] = Json::parse(names);
    return std::string(ConfigureModel(**FindRewardFamily(config), config).status().message());
  };
  EXPECT_THAT(labels(""), HasSubstr("names 2 labels"));  // as transformers takes it
  EXPECT_THAT(labels(R"({"0": "a", "1": "b", "2": "c"})"), HasSubstr("names 3 labels"));
  const auto granite = FindRewardFamily(With(R"({"architectures": ["GraniteForCausalLM"]})"));
  EXPECT_TRUE(absl::IsUnimplemented(granite.status()));
  EXPECT_THAT(std::string(granite.status().message()), HasSubstr("GraniteForCausalLM with method.reward"));
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

// A config of another family, from Llama's.
Json As(const char* architecture, const char* changes) {
  Json config = With(changes);
  config["architectures"] = {architecture};
  for (const char* key : {"is_llama_config", "pretraining_tp", "mlp_bias", "attention_bias", "rope_interleaved"}) {
    config.erase(key);
  }
  return config;
}

TEST(Families, WindowsAndLayerTypes_GoToTheirLayers) {
  const ModelConfig all = *Configure(As("MistralForCausalLM", R"({"sliding_window": 100})"));
  EXPECT_EQ(all.layer(0).window, 100);
  // Null is no window; a missing key is transformers' default.
  EXPECT_EQ(Configure(As("MistralForCausalLM", R"({"sliding_window": null})"))->layer(0).window, 0);
  EXPECT_EQ(Configure(As("MistralForCausalLM", "{}"))->layer(0).window, 4096);
  const ModelConfig upper = *Configure(
      As("Qwen2ForCausalLM", R"({"use_sliding_window": true, "sliding_window": 64, "max_window_layers": 29})"));
  EXPECT_EQ(upper.layer(28).window, 0);
  EXPECT_EQ(upper.layer(29).window, 64);
  const ModelConfig most = *Configure(As("Olmo3ForCausalLM", R"({"rope_theta": 500000})"));
  EXPECT_EQ(most.layer(2).window, 4096);
  EXPECT_EQ(most.layer(3).window, 0);
}

TEST(Families, ConfigsThatContradictThemselves_AreRefused) {
  struct Case {
    const char* architecture;
    const char* changes;
    const char* message;
  };
  const Case cases[] = {
      {"MixtralForCausalLM", R"({"num_local_experts": 4, "num_experts_per_tok": 5})",
       "`num_experts_per_tok` is 5, but there are 4 experts"},
      {"MixtralForCausalLM", R"({"router_jitter_noise": 0.1})", "`router_jitter_noise` is 0.1"},
      {"Qwen3MoeForCausalLM", R"({"mlp_only_layers": 3})", "`mlp_only_layers` must be a list"},
      {"Qwen3ForCausalLM", R"({"layer_types": ["full_attention"]})", "one entry a layer, 30"},
      {"Qwen2ForCausalLM", R"({"num_hidden_layers": 1, "layer_types": ["chunked_attention"]})", "chunked_attention"},
      {"Qwen2ForCausalLM", R"({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]})",
       "there is no `sliding_window`"},
      {"Gemma2ForCausalLM", R"({"use_bidirectional_attention": true})", "`use_bidirectional_attention` is true"},
      {"Gemma3ForCausalLM", R"({"attn_logit_softcapping": 50.0})", "`attn_logit_softcapping` is 50.0"},
      {"Gemma3ForCausalLM", R"({"rope_parameters": {"rope_theta": 1e4}})", "has a key `rope_theta`"},
      {"Phi3ForCausalLM", R"({"partial_rotary_factor": 0.01})", "leaves 0 of 64 dimensions"},
      {"Phi3ForCausalLM", R"({"rope_scaling": {"type": "su", "short_factor": [1], "long_factor": [1]}})",
       "need 32 numbers"},
      {"Phi3ForCausalLM", R"({"rope_scaling": {"type": "longrope", "short_factor": "x", "long_factor": [1]}})",
       "`rope_parameters.short_factor` must be a list of numbers"},
      {"Phi3ForCausalLM", R"({"resid_pdrop": 0.1})", "`resid_pdrop` is 0.1"},
      {"Olmo3ForCausalLM", R"({"rope_theta": 1e4})", "`rope_theta` is 10000.0; only 500000.0"},
      {"Olmo3ForCausalLM", R"({"sliding_window": null})", "`sliding_window` is null"},
      {"SmolLM3ForCausalLM", R"({"no_rope_layers": [1, 1]})", "an entry a layer, 30"},
      {"GptOssForCausalLM", R"({"swiglu_limit": 5.0})", "`swiglu_limit` is 5.0"},
      {"GptOssForCausalLM", R"({"rope_theta": null})", "`rope_scaling` is missing"},
      {"LlamaForCausalLM", R"({"quantization_config": {"quant_method": "mxfp4"}})", "quantized with \"mxfp4\""},
      {"LlamaForCausalLM", R"({"num_hidden_layers": 1000000000000})", "must be at most 100000"},
  };
  for (const Case& bad : cases) {
    const absl::Status status = Configure(As(bad.architecture, bad.changes)).status();
    EXPECT_FALSE(status.ok()) << bad.architecture << bad.changes;
    EXPECT_THAT(Message(status), HasSubstr(bad.message)) << bad.architecture;
  }
}

}  // namespace
}  // namespace temper
