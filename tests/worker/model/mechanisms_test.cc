// SPDX-License-Identifier: Apache-2.0
#include "worker/model/mechanisms.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace temper {
namespace {

using testing::ElementsAre;

ModelConfig Plain() {
  ModelConfig config;
  config.hidden_size = 64;
  config.num_layers = 3;
  config.attention = {.num_heads = 4, .num_kv_heads = 4, .head_dim = 16, .scale = 0.25};
  return config;
}

TEST(MechanismsTest, PlainDecoder_HasWhatEveryDecoderHas) {
  EXPECT_THAT(Mechanisms(Plain()), ElementsAre("mha", "rope_default", "silu"));
}

TEST(MechanismsTest, SizesAndNumbers_ChangeNothing) {
  ModelConfig config = Plain();
  config.hidden_size = 128;
  config.num_layers = 7;
  config.vocab_size = 1000;
  config.norm.epsilon = 1e-3;
  config.attention = {.num_heads = 6, .num_kv_heads = 6, .head_dim = 64, .scale = 0.125};
  config.ropes[0].theta = 1e6;
  EXPECT_EQ(Mechanisms(config), Mechanisms(Plain()));
}

// Each way to be different, and what it is called.
struct Case {
  const char* name;
  std::function<void(ModelConfig&)> change;
};

class MechanismTest : public testing::TestWithParam<Case> {};

TEST_P(MechanismTest, IsNamed) {
  ModelConfig config = Plain();
  config.layers.resize(config.num_layers);
  EXPECT_EQ(Mechanisms(config), Mechanisms(Plain()));
  GetParam().change(config);
  EXPECT_THAT(Mechanisms(config), testing::Contains(GetParam().name));
}

void SetExperts(ModelConfig& config) {
  for (LayerConfig& layer : config.layers) layer.experts = true;
}

INSTANTIATE_TEST_SUITE_P(
    Every, MechanismTest,
    testing::Values(
        Case{"gqa", [](ModelConfig& config) { config.attention.num_kv_heads = 2; }},
        Case{"mqa", [](ModelConfig& config) { config.attention.num_kv_heads = 1; }},
        Case{"attention_scale", [](ModelConfig& config) { config.attention.scale = 0.26; }},
        Case{"attention_softcap", [](ModelConfig& config) { config.attention.softcap = 50; }},
        Case{"qkv_bias", [](ModelConfig& config) { config.attention.qkv_bias = true; }},
        Case{"attention_output_bias", [](ModelConfig& config) { config.attention.output_bias = true; }},
        Case{"qk_norm_per_head", [](ModelConfig& config) { config.attention.qk_norm = QkNorm::kPerHead; }},
        Case{"qk_norm_full_width", [](ModelConfig& config) { config.attention.qk_norm = QkNorm::kFullWidth; }},
        Case{"attention_sinks", [](ModelConfig& config) { config.attention.sinks = true; }},
        Case{"gelu_tanh", [](ModelConfig& config) { config.feed_forward.activation = ops::Activation::kGeluTanh; }},
        Case{"mlp_bias", [](ModelConfig& config) { config.feed_forward.bias = true; }}, Case{"experts", SetExperts},
        Case{"experts_softmax_over_chosen",
             [](ModelConfig& config) {
               SetExperts(config);
               config.moe.softmax_over_chosen = true;
             }},
        Case{"experts_not_normalized",
             [](ModelConfig& config) {
               SetExperts(config);
               config.moe.normalized = false;
             }},
        Case{"experts_bias",
             [](ModelConfig& config) {
               SetExperts(config);
               config.moe.bias = true;
             }},
        Case{"experts_balance_loss",
             [](ModelConfig& config) {
               SetExperts(config);
               config.moe.balance_coefficient = 0.1;
             }},
        Case{"dense_and_expert_layers", [](ModelConfig& config) { config.layers[1].experts = true; }},
        Case{"rope_yarn", [](ModelConfig& config) { config.ropes[0].kind = RopeConfig::Kind::kYarn; }},
        Case{"rope_partial", [](ModelConfig& config) { config.ropes[0].rotated_share = 0.5; }},
        Case{"rope_by_layer",
             [](ModelConfig& config) {
               config.ropes.push_back(RopeConfig{.theta = 5});
               config.layers[1].rope = 1;
             }},
        Case{"layers_without_rope", [](ModelConfig& config) { config.layers[1].rope = kNoRope; }},
        Case{"sliding_window",
             [](ModelConfig& config) {
               for (LayerConfig& layer : config.layers) layer.window = 8;
             }},
        Case{"sliding_and_full_layers", [](ModelConfig& config) { config.layers[1].window = 8; }},
        Case{"tied_head", [](ModelConfig& config) { config.tied_head = true; }},
        Case{"norm_weight_offset", [](ModelConfig& config) { config.norm.weight_offset = 1; }},
        Case{"norms_before_and_after", [](ModelConfig& config) { config.post_norm = true; }},
        Case{"norms_after",
             [](ModelConfig& config) {
               config.pre_norm = false;
               config.post_norm = true;
             }},
        Case{"embedding_scale", [](ModelConfig& config) { config.embedding_scale = 8; }},
        Case{"residual_scale", [](ModelConfig& config) { config.residual_scale = 0.5; }},
        Case{"logit_scale", [](ModelConfig& config) { config.logits.scale = 0.5; }},
        Case{"logit_softcap", [](ModelConfig& config) { config.logits.softcap = 30; }}),
    [](const testing::TestParamInfo<Case>& info) { return info.param.name; });

TEST(LeastDepthTest, GoesToTheFirstLayerOfTheLastKind) {
  ModelConfig config;
  config.num_layers = 12;
  EXPECT_EQ(LeastDepth(config), 2) << "all alike";
  config.layers.resize(12);
  EXPECT_EQ(LeastDepth(config), 2) << "all alike";
  config.layers[1].window = 8;
  EXPECT_EQ(LeastDepth(config), 2);
  config.layers[5].rope = kNoRope;
  config.layers[11].rope = kNoRope;
  EXPECT_EQ(LeastDepth(config), 6);
  config.layers[11].window = 8;
  EXPECT_EQ(LeastDepth(config), 12);
  config.num_layers = 1;
  EXPECT_EQ(LeastDepth(config), 1);
}

}  // namespace
}  // namespace temper
