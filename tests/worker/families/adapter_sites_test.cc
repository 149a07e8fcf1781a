// SPDX-License-Identifier: Apache-2.0
#include "worker/families/adapter_sites.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/families/all_families.h"

namespace temper {
namespace {

using ::testing::HasSubstr;

TEST(FindAdapterSites, AllLinear_GivesSevenModulesALayer) {
  const auto sites = *FindAdapterSites(LlamaFamily(), {.num_layers = 2}, {"all-linear"});
  ASSERT_EQ(sites.size(), 14);
  EXPECT_EQ(sites[7].hf_module, "model.layers.1.self_attn.q_proj");
  EXPECT_EQ(sites[7].internal, "layers.1.attn.q");
}

TEST(FindAdapterSites, NamedTargets_GivesThoseOnly) {
  const auto sites = *FindAdapterSites(LlamaFamily(), {.num_layers = 1}, {"down_proj", "q_proj"});
  ASSERT_EQ(sites.size(), 2);
  EXPECT_EQ(sites[0].internal, "layers.0.attn.q");
  EXPECT_EQ(sites[1].internal, "layers.0.mlp.down");
}

TEST(FindAdapterSites, FusedModule_IsOneSiteOfSeveralParts) {
  const auto sites = *FindAdapterSites(Phi3Family(), {.num_layers = 1}, {"qkv_proj", "gate_up_proj"});
  ASSERT_EQ(sites.size(), 2u);
  EXPECT_EQ(sites[0].hf_module, "model.layers.0.self_attn.qkv_proj");
  EXPECT_EQ(sites[0].internal, "layers.0.attn.q");
  EXPECT_EQ(sites[0].parts, 3);
  EXPECT_EQ(sites[1].internal, "layers.0.mlp.gate");
  EXPECT_EQ(sites[1].parts, 2);
  const absl::Status status = FindAdapterSites(Phi3Family(), {.num_layers = 1}, {"q_proj"}).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("qkv_proj"));
}

TEST(FindAdapterSites, UnknownTarget_NamesWhatThereIs) {
  const absl::Status status = FindAdapterSites(LlamaFamily(), {.num_layers = 1}, {"qkv_proj"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no module \"qkv_proj\"; there are down_proj, gate_proj"));
}

}  // namespace
}  // namespace temper
