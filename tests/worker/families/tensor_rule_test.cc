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
