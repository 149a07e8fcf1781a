// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/module_trace.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kBad = 1.0;

std::vector<TensorRule> Rules() {
  const std::string attention = "layers.{layer}.attn.";
  return {{"model.embed.weight", {"embed.weight"}},
          {"model.norm.weight", {"final_norm.weight"}},
          {"lm_head.weight", {"lm_head.weight"}},
          {"model.layers.{layer}.mlp.down_proj.weight", {"layers.{layer}.mlp.down.weight"}},
          {"model.layers.{layer}.norm.weight", {"layers.{layer}.attn_norm.weight"}},
          {"model.layers.{layer}.attn.qkv.weight",
           {attention + "q.weight", attention + "k.weight", attention + "v.weight"}},
          {"model.layers.{layer}.attn.qkv.bias", {attention + "q.bias", attention + "k.bias", attention + "v.bias"}},
          {"model.layers.{layer}.attn.o.weight", {attention + "o.weight"}}};
}

std::vector<TracedModule> Traced(std::vector<std::string> names) {
  std::vector<TracedModule> traced;
  for (std::string& name : names) traced.push_back({name, at::ones({5, 2}), at::ones({5, 2})});
  return traced;
}

// All modules of a model with one layer, none off.
std::vector<ModuleError> NoErrors() {
  std::vector<ModuleError> errors;
  const auto traced = Traced({"layers.0.attn_norm", "layers.0.attn.q", "layers.0.attn.k", "layers.0.attn.v",
                              "layers.0.attn.o", "layers.0.mlp.down", "final_norm", "lm_head"});
  for (HfModule& module : FindHfModules(Rules(), 1, traced)) {
    errors.push_back({.module = std::move(module), .input_allowed = 1e-5, .output_allowed = 1e-5});
  }
  return errors;
}

Departure Found(const std::vector<ModuleError>& errors) {
  return FirstDeparture(errors, "model.embed").value_or(Departure{"none"});
}

TEST(FindHfModules, FusedRules_ComeOnceInTheOrderOfExecution) {
  const auto traced = Traced({"layers.0.attn_norm", "layers.0.attn.q", "layers.0.attn.k", "layers.0.attn.v",
                              "layers.0.attn.o", "layers.1.attn_norm", "final_norm"});
  const std::vector<HfModule> modules = FindHfModules(Rules(), 2, traced);
  std::vector<std::string> names;
  for (const HfModule& module : modules) names.push_back(module.name);
  // The second layer's matrices were not traced, nor was the head.
  EXPECT_THAT(names, ElementsAre("model.layers.0.norm", "model.layers.0.attn.qkv", "model.layers.0.attn.o",
                                 "model.layers.1.norm", "model.norm"));
  EXPECT_THAT(modules[1].parts, ElementsAre("layers.0.attn.q", "layers.0.attn.k", "layers.0.attn.v"));
  EXPECT_EQ(modules[3].layer, "model.layers.1");
  EXPECT_EQ(modules[4].layer, "");
  EXPECT_EQ(HfEmbeddingName(Rules()), "model.embed");
}

TEST(CompareModules, FusedOutputsAreComparedSideBySide) {
  const at::Tensor x = at::randn({5, 3}), q = at::randn({5, 4}), k = at::randn({5, 2}), v = at::randn({5, 2});
  const std::vector<TracedModule> traced = {
      {"layers.0.attn.q", x, q}, {"layers.0.attn.k", x, k}, {"layers.0.attn.v", x, v}};
  const auto modules = FindHfModules(Rules(), 1, traced);
  HfTrace reference{.modules = {{"model.layers.0.attn.qkv", {x, at::cat({q, k, v}, 1)}}}};
  std::vector<ModuleError> errors = CompareModules(modules, traced, reference);
  ASSERT_EQ(errors.size(), 1);
  EXPECT_EQ(errors[0].input, 0);
  EXPECT_EQ(errors[0].output, 0);

  reference.modules["model.layers.0.attn.qkv"] = {2 * x, at::cat({q, v, k}, 1)};
  errors = CompareModules(modules, traced, reference);
  EXPECT_NEAR(errors[0].input, 0.5, 1e-6);
  EXPECT_GT(errors[0].output, 0.1);

  // A tensor that is no module on the other side, such as one of fused experts, has nothing to compare.
  reference.modules.clear();
  EXPECT_TRUE(CompareModules(modules, traced, reference).empty());
}

TEST(CompareModules, HeadsBeforeTokens_AreBroughtInOurOrder) {
  const at::Tensor x_THd = at::randn({5, 3, 4});
  const std::vector<TracedModule> traced = {{"final_norm", x_THd, x_THd}};
  const auto modules = FindHfModules(Rules(), 1, traced);
  const at::Tensor x_HTd = x_THd.transpose(0, 1).contiguous();
  const std::vector<ModuleError> errors =
      CompareModules(modules, traced, HfTrace{.modules = {{"model.norm", {x_HTd, x_HTd + 1}}}});
  EXPECT_EQ(errors[0].input, 0);
  EXPECT_GT(errors[0].output, 0.1);
}

TEST(ModuleTrace, OnlyBetweenStartAndTake) {
  ModuleTrace trace;
  trace.OnModule("before", at::ones({1}), at::ones({1}));
  trace.Start();
  trace.OnModule("first", at::ones({1}), at::zeros({1}));
  trace.OnModule("second", at::ones({1}), at::ones({1}));
  const std::vector<TracedModule> modules = trace.Take();
  ASSERT_EQ(modules.size(), 2);
  EXPECT_EQ(modules[0].name, "first");
  EXPECT_EQ(modules[0].output.item<float>(), 0);
  trace.OnModule("after", at::ones({1}), at::ones({1}));
  EXPECT_TRUE(trace.Take().empty());
}

TEST(FirstDeparture, NoneIsOff_IsNothing) { EXPECT_FALSE(FirstDeparture(NoErrors(), "model.embed").has_value()); }

TEST(FirstDeparture, OutputOff_IsTheModuleAndTheFirstOfThem) {
  std::vector<ModuleError> errors = NoErrors();
  errors[1].output = kBad;
  for (size_t i = 2; i < errors.size(); ++i) errors[i].input = errors[i].output = 2 * kBad;
  const Departure found = Found(errors);
  EXPECT_EQ(found.module, "model.layers.0.attn.qkv");
  EXPECT_EQ(found.error, kBad);
  EXPECT_EQ(found.what, "its output");
}

TEST(FirstDeparture, InputOff_IsWhatStandsBefore) {
  struct Case {
    size_t module;
    std::string located;
    std::string what;
  };
  const std::vector<Case> cases = {{0, "model.embed", "embeddings"},
                                   {2, "model.layers.0.attn", "attention itself"},
                                   {3, "model.layers.0.mlp", "activation"},
                                   {4, "model.layers.0", "the sum with the residual, or its scale, before model.norm"}};
  for (const Case& expected : cases) {
    std::vector<ModuleError> errors = NoErrors();
    errors[expected.module].input = kBad;
    errors[expected.module].output = kBad;
    const Departure found = Found(errors);
    EXPECT_EQ(found.module, expected.located);
    EXPECT_THAT(found.what, HasSubstr(expected.what));
  }
}

TEST(FirstDeparture, OnlyTheLogitsOff_IsTheHead) {
  std::vector<ModuleError> errors = NoErrors();
  errors.back().output = kBad;
  EXPECT_EQ(Found(errors).module, "lm_head");
  EXPECT_THAT(Found(errors).what, HasSubstr("soft cap"));
}

TEST(FirstDeparture, BoundIsEachModulesOwn) {
  std::vector<ModuleError> errors = NoErrors();
  errors[1].output = 1e-4;
  errors[1].output_allowed = 1e-3;
  errors[2].output = 1e-3;
  EXPECT_EQ(Found(errors).module, "model.layers.0.attn.o");
}

TEST(FirstDeparture, Nan_Departs) {
  std::vector<ModuleError> errors = NoErrors();
  errors[3].output = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(Found(errors).module, "model.layers.0.mlp.down_proj");
}

}  // namespace
}  // namespace temper
