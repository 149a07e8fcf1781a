// SPDX-License-Identifier: Apache-2.0
#include "worker/families/tensor_rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/families/families.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const TensorBinding* Find(const std::vector<TensorBinding>& bindings, std::string_view name) {
  for (const TensorBinding& binding : bindings) {
    if (binding.hf_name == name) return &binding;
  }
  return nullptr;
}

TEST(BindTensors, Identity_PerLayerAndOnce_BindsEveryWeight) {
  const std::vector<TensorRule> rules = {{"model.norm.weight", {"final_norm.weight"}},
                                         {"model.layers.{layer}.q.weight", {"layers.{layer}.attn.q.weight"}},
                                         {"model.layers.{layer}.q.bias", {"layers.{layer}.attn.q.bias"}}};
  const std::vector<WeightShape> weights = {
      {"layers.0.attn.q.weight", {4, 3}}, {"layers.1.attn.q.weight", {4, 3}}, {"final_norm.weight", {3}}};
  const auto bindings = *BindTensors(rules, {.num_layers = 2}, weights);
  ASSERT_EQ(bindings.size(), 3);  // no biases in this model
  const TensorBinding* q = Find(bindings, "model.layers.1.q.weight");
  ASSERT_NE(q, nullptr);
  EXPECT_THAT(q->parts, ElementsAre(1));
  EXPECT_THAT(q->hf_shape, ElementsAre(4, 3));
  EXPECT_FALSE(q->optional_copy);
}

TEST(BindTensors, Fusion_RowsAreStackedInOrder) {
  const std::vector<TensorRule> rules = {
      {"layers.{layer}.qkv.weight",
       {"layers.{layer}.attn.q.weight", "layers.{layer}.attn.k.weight", "layers.{layer}.attn.v.weight"}}};
  const std::vector<WeightShape> weights = {
      {"layers.0.attn.v.weight", {2, 3}}, {"layers.0.attn.q.weight", {4, 3}}, {"layers.0.attn.k.weight", {2, 3}}};
  const auto bindings = *BindTensors(rules, {.num_layers = 1}, weights);
  ASSERT_EQ(bindings.size(), 1);
  EXPECT_THAT(bindings[0].parts, ElementsAre(1, 2, 0));
  EXPECT_THAT(bindings[0].hf_shape, ElementsAre(8, 3));
}

TEST(BindTensors, TiedHead_IsAnOptionalCopyOfTheEmbedding) {
  const std::vector<TensorRule> rules = {{"embed_tokens.weight", {"embed.weight"}},
                                         {"lm_head.weight", {"lm_head.weight"}}};
  const std::vector<WeightShape> weights = {{"embed.weight", {10, 3}}};
  const auto bindings = *BindTensors(rules, {.tied_head = true}, weights);
  const TensorBinding* head = Find(bindings, "lm_head.weight");
  ASSERT_NE(head, nullptr);
  EXPECT_TRUE(head->optional_copy);
  EXPECT_THAT(head->hf_shape, ElementsAre(10, 3));
  EXPECT_FALSE(Find(bindings, "embed_tokens.weight")->optional_copy);
  // Untied, the model has no weight for the rule.
  EXPECT_EQ(Find(*BindTensors(rules, {}, weights), "lm_head.weight"), nullptr);
}

TEST(BindTensors, Experts_OneTensorEach_BindTheirRows) {
  const std::vector<TensorRule> rules = {
      {"l.{layer}.e.{expert}.w1.weight", {"layers.{layer}.mlp.experts.{expert}.gate.weight"}}};
  std::vector<WeightShape> weights;
  for (const char* expert : {"0", "1"}) {
    weights.push_back({std::string("layers.0.mlp.experts.").append(expert).append(".gate.weight"), {4, 3}});
  }
  const auto bindings = *BindTensors(rules, {.num_layers = 2, .moe = {.num_experts = 2}}, weights);
  ASSERT_EQ(bindings.size(), 2);  // the second layer has none
  EXPECT_THAT(Find(bindings, "l.0.e.1.w1.weight")->parts, ElementsAre(1));
}

TEST(BindTensors, StackedExperts_ArePartsOfEachInTurn) {
  const std::vector<TensorRule> rules = {
      {.hf_name = "gate_up", .parts = {"{expert}.gate", "{expert}.up"}, .layout = Layout::kExperts},
      {.hf_name = "gate_up_bias", .parts = {"{expert}.gate_b", "{expert}.up_b"}, .layout = Layout::kExperts}};
  const std::vector<WeightShape> weights = {{"0.gate", {4, 3}}, {"1.gate", {4, 3}}, {"0.up", {4, 3}},  {"1.up", {4, 3}},
                                            {"0.gate_b", {4}},  {"0.up_b", {4}},    {"1.gate_b", {4}}, {"1.up_b", {4}}};
  const auto bindings = *BindTensors(rules, {.moe = {.num_experts = 2}}, weights);
  const TensorBinding* gate_up = Find(bindings, "gate_up");
  ASSERT_NE(gate_up, nullptr);
  EXPECT_THAT(gate_up->parts, ElementsAre(0, 2, 1, 3));
  EXPECT_THAT(gate_up->hf_shape, ElementsAre(2, 3, 8));
  EXPECT_THAT(Find(bindings, "gate_up_bias")->hf_shape, ElementsAre(2, 8));
}

TEST(BindTensors, WrongTables_AreInternalErrors) {
  struct Case {
    std::vector<TensorRule> rules;
    std::vector<WeightShape> weights;
    const char* message;
  };
  const Case cases[] = {
      {{}, {{"embed.weight", {2, 2}}}, "no rule for embed.weight"},
      {{{"a", {"x"}}, {"b", {"x"}}}, {{"x", {2}}}, "two rules want x"},
      {{{"a", {"x", "y"}}}, {{"x", {2}}}, "only some parts of a"},
      {{{"a", {"x", "y"}}}, {{"x", {2, 3}}, {"y", {2, 4}}}, "y does not fit"},
  };
  for (const Case& bad : cases) {
    const absl::Status status = BindTensors(bad.rules, {.num_layers = 1}, bad.weights).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message));
  }
}

TEST(AtLayer, Placeholder_IsReplaced) {
  EXPECT_EQ(AtLayer("model.layers.{layer}.x", 12), "model.layers.12.x");
  EXPECT_EQ(AtLayer("model.norm", 12), "model.norm");
}

}  // namespace
}  // namespace temper
