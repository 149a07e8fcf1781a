// SPDX-License-Identifier: Apache-2.0
#include "worker/families/adapter_sites.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/families/all_families.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// A checkpoint that has every tensor but biases, all of one shape.
std::optional<std::vector<int64_t>> Everything(const std::string& name) {
  if (name.ends_with(".bias")) return std::nullopt;
  return std::vector<int64_t>{8, 4};
}

std::vector<AdapterSite> AllSites(const FamilySpec& family, int64_t layers) {
  return ListAdapterSites(family, {.num_layers = layers}, Everything);
}

std::vector<std::string> Modules(const std::vector<AdapterSite>& sites) {
  std::vector<std::string> modules;
  for (const AdapterSite& site : sites) modules.push_back(site.hf_module);
  return modules;
}

std::vector<std::string> Find(const FamilySpec& family, int64_t layers, const std::vector<std::string>& targets) {
  return Modules(*FindAdapterSites(family.architecture, AllSites(family, layers), targets));
}

std::string Error(const FamilySpec& family, const std::vector<std::string>& targets) {
  const absl::Status status = FindAdapterSites(family.architecture, AllSites(family, 1), targets).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(FindAdapterSites, AllLinear_GivesSevenModulesALayer) {
  const auto sites = *FindAdapterSites("", AllSites(LlamaFamily(), 2), {"all-linear"});
  ASSERT_EQ(sites.size(), 14);
  EXPECT_EQ(sites[7].hf_module, "model.layers.1.self_attn.q_proj");
  EXPECT_EQ(sites[7].internal, "layers.1.attn.q");
  EXPECT_EQ(sites[7].in_features, 4);
  EXPECT_EQ(sites[7].out_features, 8);
}

TEST(FindAdapterSites, NamedTargets_GivesThoseOnly) {
  EXPECT_THAT(Find(LlamaFamily(), 1, {"down_proj", "self_attn.q_proj"}),
              ElementsAre("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"));
  EXPECT_THAT(Find(LlamaFamily(), 2, {"model.layers.1.mlp.up_proj"}), ElementsAre("model.layers.1.mlp.up_proj"));
}

TEST(FindAdapterSites, Pattern_IsForTheWholeName) {
  EXPECT_THAT(Find(LlamaFamily(), 12, {"model.layers.1?.self_attn.[qk]_proj"}),
              ElementsAre("model.layers.10.self_attn.q_proj", "model.layers.10.self_attn.k_proj",
                          "model.layers.11.self_attn.q_proj", "model.layers.11.self_attn.k_proj"));
  EXPECT_THAT(Error(LlamaFamily(), {"self_attn.*"}),
              HasSubstr("with whole names like model.layers.0.self_attn.q_proj"));
}

TEST(FindAdapterSites, FusedModule_IsOneSiteOfSeveralParts) {
  const auto sites = *FindAdapterSites("", AllSites(Phi3Family(), 1), {"qkv_proj", "gate_up_proj"});
  ASSERT_EQ(sites.size(), 2u);
  EXPECT_EQ(sites[0].hf_module, "model.layers.0.self_attn.qkv_proj");
  EXPECT_EQ(sites[0].internal, "layers.0.attn.q");
  EXPECT_EQ(sites[0].parts, 3);
  EXPECT_EQ(sites[1].internal, "layers.0.mlp.gate");
  EXPECT_EQ(sites[1].parts, 2);
  EXPECT_THAT(Error(Phi3Family(), {"q_proj"}), HasSubstr("qkv_proj"));
}

TEST(FindAdapterSites, UnknownTarget_NamesWhatThereIs) {
  EXPECT_THAT(Error(LlamaFamily(), {"qkv_proj"}),
              HasSubstr("no module \"qkv_proj\"; there are down_proj, embed_tokens, gate_proj"));
  EXPECT_THAT(Error(LlamaFamily(), {"norm"}), HasSubstr("can be trained as a whole: lora.modules_to_save"));
  EXPECT_THAT(Error(LlamaFamily(), {"experts"}),
              HasSubstr("down_proj, embed_tokens, gate_proj, k_proj, lm_head, o_proj"));
  // Part of a name is none.
  EXPECT_THAT(Error(LlamaFamily(), {"proj"}), HasSubstr("no module \"proj\""));
}

TEST(FindAdapterSites, EmbeddingAndHead_HaveARowAToken) {
  const auto all = ListAdapterSites(LlamaFamily(), {.hidden_size = 6, .num_layers = 1, .vocab_size = 9}, Everything);
  const auto sites = *FindAdapterSites("", all, {"lm_head", "embed_tokens"});
  EXPECT_THAT(Modules(sites), ElementsAre("model.embed_tokens", "lm_head"));
  for (const AdapterSite& site : sites) {
    EXPECT_EQ(site.in_features, 6);
    EXPECT_EQ(site.out_features, 9);
  }
  EXPECT_EQ(FindAdapterSites("", all, {"all-linear"})->size(), 7u);
  EXPECT_EQ(FindAdapterSites("", all, {"all-linear", "lm_head"})->size(), 8u);
}

// Two layers, the second with experts.
ModelConfig WithExperts() {
  ModelConfig config{.hidden_size = 6, .num_layers = 2};
  config.moe = {.num_experts = 3, .intermediate_size = 5};
  config.layers = {{}, {.experts = true}};
  return config;
}

TEST(FindAdapterSites, Experts_AreTwoParametersOfALayer) {
  const auto all = ListAdapterSites(Qwen3MoeFamily(), WithExperts(), Everything);
  const auto sites = *FindAdapterSites("", all, {"experts"});
  EXPECT_THAT(Modules(sites), ElementsAre("model.layers.1.mlp.experts", "model.layers.1.mlp.experts"));
  EXPECT_EQ(sites[0].internal, "layers.1.mlp.experts.gate_up");
  EXPECT_EQ(sites[0].in_features, 6);
  EXPECT_EQ(sites[0].out_features, 10);
  EXPECT_EQ(sites[1].internal, "layers.1.mlp.experts.down");
  EXPECT_EQ(sites[1].in_features, 5);
  EXPECT_EQ(sites[1].out_features, 6);
  EXPECT_THAT(sites[0].expert_modules, ElementsAre("model.layers.1.mlp.experts.{expert}.gate_proj",
                                                   "model.layers.1.mlp.experts.{expert}.up_proj"));
  EXPECT_EQ(OfExpert(sites[1].expert_modules.front(), 2), "model.layers.1.mlp.experts.2.down_proj");
  EXPECT_THAT(TargetModules(sites, all), testing::IsEmpty());
  EXPECT_THAT(TargetParameters(sites, all), ElementsAre("mlp.experts.down_proj", "mlp.experts.gate_up_proj"));
  EXPECT_THAT(TargetParameters({sites[1]}, {sites[0], sites[1], sites[1]}),
              ElementsAre("model.layers.1.mlp.experts.down_proj"));
}

TEST(ListAdapterSites, ExpertsOfEveryFamily_HaveTheNamesOfTheirCheckpoint) {
  const auto down = [](const FamilySpec& family) {
    return FindAdapterSites("", ListAdapterSites(family, WithExperts(), Everything), {"experts"})->back();
  };
  // In memory transformers has another name than on disk.
  EXPECT_EQ(down(MixtralFamily()).hf_module, "model.layers.1.mlp.experts");
  EXPECT_THAT(down(MixtralFamily()).expert_modules, ElementsAre("model.layers.1.block_sparse_moe.experts.{expert}.w2"));
  EXPECT_THAT(down(GptOssFamily()).expert_modules, testing::IsEmpty());
}

TEST(ListAdapterSites, LayerWithoutTheModule_GivesNone) {
  const auto sites = ListAdapterSites(LlamaFamily(), {.num_layers = 2}, [](const std::string& name) {
    return name.find("layers.0.mlp.gate_proj") != name.npos ? std::nullopt : Everything(name);
  });
  EXPECT_THAT(Modules(sites), Not(testing::Contains("model.layers.0.mlp.gate_proj")));
  EXPECT_THAT(Modules(sites), testing::Contains("model.layers.1.mlp.gate_proj"));
}

TEST(TargetModules, ShortNamesAreForAllOfAName) {
  const auto all = AllSites(LlamaFamily(), 2);
  const auto some = *FindAdapterSites("", all, {"q_proj", "model.layers.1.mlp.up_proj"});
  EXPECT_THAT(TargetModules(some, all), ElementsAre("model.layers.1.mlp.up_proj", "q_proj"));
}

TEST(FindTrainedModules, Names_GiveWholeNames) {
  const auto find = [](bool tied, const std::vector<std::string>& names) {
    return *FindTrainedModules(LlamaFamily(), {.num_layers = 1, .tied_head = tied}, Everything, names);
  };
  EXPECT_THAT(find(false, {"lm_head"}), ElementsAre("lm_head"));
  EXPECT_THAT(find(false, {"norm", "*.input_layernorm"}), ElementsAre("model.norm", "model.layers.0.input_layernorm"));
  // They are one matrix.
  EXPECT_THAT(find(true, {"lm_head"}), ElementsAre("model.embed_tokens", "lm_head"));
}

TEST(FindTrainedModules, Experts_AreNotThere) {
  const absl::Status status = FindTrainedModules(MixtralFamily(), {.num_layers = 1}, Everything, {"w1"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("lora.modules_to_save: MixtralForCausalLM has no module \"w1\""));
}

}  // namespace
}  // namespace temper
