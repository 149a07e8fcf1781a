// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/peft_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/failure.h"
#include "tests/worker/checkpoint/tiny_checkpoint.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr LoraRows kRows = {.rows = 5, .in_features = 3};

std::vector<AdapterTensor> Tensors(const std::vector<AdapterSite>& sites,
                                   const std::vector<const LoraAdapter*>& adapters,
                                   AdapterFormat format = AdapterFormat::kPeft) {
  return TensorsOfAdapters(sites, adapters, format);
}

std::vector<std::string> Names(const std::vector<AdapterTensor>& tensors) {
  std::vector<std::string> names;
  for (const AdapterTensor& tensor : tensors) names.push_back(tensor.name);
  return names;
}

class PeftAdapterTest : public ::testing::Test {
 protected:
  AdapterSite Site(const std::string& hf_module, size_t adapter) const {
    return {.hf_module = hf_module, .internal = adapters_[adapter]->site, .in_features = 3, .out_features = 5};
  }

  PeftAdapterTest() {
    for (const char* site : {"layers.0.attn.q", "layers.0.mlp.down"}) {
      adapters_.push_back(MakeLoraAdapter({.rank = 2, .alpha = 6.0}, site, kRows, at::kFloat));
      const WeightView b = {"b", &adapters_.back()->b_OR, 0, 5};
      StoreMaster(b, at::randn({5, 2}));
    }
    tensors_ = Tensors({Site("model.layers.0.self_attn.q_proj", 0), Site("model.layers.0.mlp.down_proj", 1)},
                       {adapters_[0].get(), adapters_[1].get()});
    const PeftConfig config = {.base_model = "/models/base",
                               .rank = 2,
                               .alpha = 6.0,
                               .rslora = true,
                               .dropout = 0.1,
                               .target_modules = {"down_proj", "q_proj"}};
    store_ = *ObjectStore::Open(directory_.path().string());
    publication_ = *Publication::Begin(*store_, "adapter", "job", 1);
    EXPECT_TRUE(ExportPeftAdapter(config, tensors_, *publication_).ok());
  }

  const TemporaryDirectory directory_;
  const fs::path file_ = directory_.path() / "adapter/adapter_model.safetensors";
  std::vector<std::unique_ptr<LoraAdapter>> adapters_;
  std::vector<AdapterTensor> tensors_;
  std::unique_ptr<ObjectStore> store_;
  std::unique_ptr<Publication> publication_;
};

TEST_F(PeftAdapterTest, Config_NamesBaseRankAlphaAndTargets) {
  const nlohmann::json config = nlohmann::json::parse(*store_->Read("adapter/adapter_config.json"));
  EXPECT_EQ(config["peft_type"], "LORA");
  EXPECT_EQ(config["base_model_name_or_path"], "/models/base");
  EXPECT_EQ(config["r"], 2);
  EXPECT_EQ(config["lora_alpha"], 6.0);
  EXPECT_EQ(config["lora_dropout"], 0.1);
  EXPECT_EQ(config["use_rslora"], true);
  EXPECT_FALSE(config.contains("modules_to_save"));
  EXPECT_THAT(config["target_modules"].get<std::vector<std::string>>(), ElementsAre("down_proj", "q_proj"));
}

TEST_F(PeftAdapterTest, Weights_HavePeftsNamesAndTheMasters) {
  const auto file = *SafetensorsFile::Open(file_.string());
  std::vector<std::string> names;
  for (const SafetensorsEntry& entry : file->header().entries) names.push_back(entry.name);
  EXPECT_THAT(names, ElementsAre("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight",
                                 "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight",
                                 "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                                 "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"));
  EXPECT_TRUE(at::equal(*file->Tensor(file->header().entries[3]), adapters_[0]->b_OR.weight.detach()));
  EXPECT_THAT(file->header().entries[2].shape, ElementsAre(2, 3));
}

TEST_F(PeftAdapterTest, Prove_SoundFile_IsOkAndOneBitOffIsNot) {
  EXPECT_TRUE(ProvePeftAdapter(*store_, "adapter", tensors_).ok());
  std::string bytes = *store_->Read("adapter/adapter_model.safetensors");
  bytes.back() ^= 1;
  WriteFile(file_, bytes);
  const absl::Status status = ProvePeftAdapter(*store_, "adapter", tensors_);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("q_proj.lora_B.weight"));
}

TEST_F(PeftAdapterTest, Prove_AdapterMissing_IsDataLoss) {
  AdapterTensor third = tensors_[0];
  third.name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight";
  tensors_.push_back(third);
  EXPECT_EQ(ProvePeftAdapter(*store_, "adapter", tensors_).code(), absl::StatusCode::kDataLoss);
}

TEST(TensorsOfAdapters, Embedding_IsTransposedAndWithoutPadding) {
  const auto adapter = MakeLoraAdapter({.rank = 2}, "embed", {.rows = 64, .in_features = 3}, at::kFloat);
  const AdapterSite site = {.hf_module = "model.embed_tokens",
                            .internal = "embed",
                            .in_features = 3,
                            .out_features = 50,
                            .kind = AdapterSite::Kind::kEmbedding};
  const auto tensors = Tensors({site}, {adapter.get()});
  EXPECT_THAT(Names(tensors), ElementsAre("base_model.model.model.embed_tokens.lora_embedding_A",
                                          "base_model.model.model.embed_tokens.lora_embedding_B"));
  EXPECT_THAT(tensors[0].shape(), ElementsAre(2, 50));
  EXPECT_THAT(tensors[1].shape(), ElementsAre(3, 2));
  const at::Tensor values = at::randn({2, 50});
  tensors[0].Store(values);
  EXPECT_TRUE(at::equal(adapter->b_OR.weight.detach().narrow(0, 0, 50), values.t()));
  EXPECT_TRUE(at::equal(tensors[0].Join(LoadMaster), values));
}

// Two experts of rank 3, whose gate and up have two rows each.
class ExpertTensorsTest : public ::testing::Test {
 protected:
  ExpertTensorsTest() {
    site_ = {.hf_module = "model.layers.0.mlp.experts",
             .internal = "layers.0.mlp.experts.gate_up",
             .in_features = 5,
             .out_features = 4,
             .kind = AdapterSite::Kind::kExperts,
             .parameter = "gate_up_proj",
             .experts = 2};
    StoreMaster({"", &adapter_->b_OR, 0, 8}, at::randn({8, 3}));
  }

  // Row `row` of expert `expert`, column `column`, of B.
  float B(int64_t expert, int64_t row, int64_t column) const {
    return adapter_->b_OR.weight[expert * 4 + row][column].item<float>();
  }

  AdapterSite site_;
  std::unique_ptr<LoraAdapter> adapter_ = MakeLoraAdapter({.rank = 3}, "layers.0.mlp.experts.gate_up",
                                                          {.rows = 8, .in_features = 5, .experts = 2}, at::kFloat);
};

TEST_F(ExpertTensorsTest, Stacked_HasAColumnForEachRankAndExpert) {
  for (const bool interleaved : {false, true}) {
    site_.interleaved = interleaved;
    const auto tensors = Tensors({site_}, {adapter_.get()});
    EXPECT_THAT(Names(tensors), ElementsAre("base_model.model.model.layers.0.mlp.experts.base_layer.lora_A.weight",
                                            "base_model.model.model.layers.0.mlp.experts.base_layer.lora_B.weight"));
    EXPECT_THAT(tensors[0].shape(), ElementsAre(6, 5));
    EXPECT_THAT(tensors[1].shape(), ElementsAre(4, 6));
    const at::Tensor b = tensors[1].Join(LoadMaster);
    EXPECT_EQ(b.sizes().vec(), tensors[1].shape());
    // The first row of up: behind those of gate, or behind the first of them.
    for (const int64_t expert : {0, 1}) {
      for (const int64_t column : {0, 1, 2}) {
        EXPECT_EQ(b[interleaved ? 1 : 2][column * 2 + expert].item<float>(), B(expert, 2, column));
      }
    }
    const at::Tensor before = adapter_->b_OR.weight.detach().clone();
    tensors[1].Store(b);
    EXPECT_TRUE(at::equal(adapter_->b_OR.weight, before));
  }
}

TEST_F(ExpertTensorsTest, OneByOne_GateAndUpShareTheirA) {
  const std::string experts = "model.layers.0.mlp.experts.{expert}.";
  site_.expert_modules = {experts + "gate_proj", experts + "up_proj"};
  const auto tensors = Tensors({site_}, {adapter_.get()}, AdapterFormat::kVllm);
  ASSERT_EQ(tensors.size(), 8u);
  EXPECT_EQ(tensors[6].name, "base_model.model.model.layers.0.mlp.experts.1.up_proj.lora_A.weight");
  EXPECT_TRUE(at::equal(tensors[4].Join(LoadMaster), tensors[6].Join(LoadMaster)));
  EXPECT_TRUE(at::equal(tensors[6].Join(LoadMaster), adapter_->a_RI.weight.detach().narrow(0, 3, 3)));
  EXPECT_EQ(tensors[7].name, "base_model.model.model.layers.0.mlp.experts.1.up_proj.lora_B.weight");
  EXPECT_THAT(tensors[7].shape(), ElementsAre(2, 3));
  EXPECT_EQ(tensors[7].Join(LoadMaster)[0][1].item<float>(), B(1, 2, 1));
}

TEST_F(ExpertTensorsTest, OneByOne_WhereACheckpointHasNoSingleExperts_IsStacked) {
  EXPECT_EQ(Names(Tensors({site_}, {adapter_.get()}, AdapterFormat::kVllm)), Names(Tensors({site_}, {adapter_.get()})));
}

// Opening what was written.
class PeftAdapterOpenTest : public PeftAdapterTest {
 protected:
  absl::StatusOr<std::unique_ptr<PeftAdapter>> Open() {
    return PeftAdapter::Open((directory_.path() / "adapter").string());
  }

  std::string Error() {
    const absl::Status status = Open().status();
    EXPECT_EQ(CauseOf(status), FailureCause::kUserInput) << status;
    return std::string(status.message());
  }

  void SetKey(const std::string& key, const nlohmann::json& value) {
    nlohmann::json config = nlohmann::json::parse(*store_->Read("adapter/adapter_config.json"));
    config[key] = value;
    WriteFile(directory_.path() / "adapter/adapter_config.json", config.dump());
  }
};

TEST_F(PeftAdapterOpenTest, RoundTrip_GivesConfigAndNumbers) {
  const auto adapter = Open();
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_EQ((*adapter)->config().rank, 2);
  EXPECT_EQ((*adapter)->config().alpha, 6.0);
  EXPECT_TRUE((*adapter)->config().rslora);
  EXPECT_THAT((*adapter)->config().target_modules,
              ElementsAre("model.layers.0.mlp.down_proj", "model.layers.0.self_attn.q_proj"));
  const auto other = MakeLoraAdapter({.rank = 2, .alpha = 6.0, .seed = 7}, "layers.0.attn.q", kRows, at::kFloat);
  ASSERT_FALSE(at::equal(other->a_RI.weight, adapters_[0]->a_RI.weight));
  ASSERT_TRUE((*adapter)->Load(Tensors({Site("model.layers.0.self_attn.q_proj", 0)}, {other.get()})).ok());
  EXPECT_TRUE(at::equal(other->a_RI.weight, adapters_[0]->a_RI.weight));
  EXPECT_TRUE(at::equal(other->b_OR.weight, adapters_[0]->b_OR.weight));
}

TEST_F(PeftAdapterOpenTest, TensorMissingOrOfAnotherShape_IsNamed) {
  const auto adapter = *Open();
  const auto load = [&](const std::string& module, int64_t in) {
    const auto other = MakeLoraAdapter({.rank = 2}, "layers.0.attn.q", {.rows = 5, .in_features = in}, at::kFloat);
    return std::string(adapter->Load(Tensors({Site(module, 0)}, {other.get()})).message());
  };
  EXPECT_THAT(load("model.layers.0.self_attn.k_proj", 3),
              HasSubstr("has no tensor base_model.model.model.layers.0.self_attn.k_proj"));
  EXPECT_THAT(load("model.layers.0.self_attn.q_proj", 4),
              HasSubstr("q_proj.lora_A.weight is [2, 3] instead of [2, 4]"));
}

TEST_F(PeftAdapterOpenTest, WhatTemperDoesNotHave_IsNamed) {
  SetKey("peft_version", "0.21.2");
  SetKey("rank_pattern", nlohmann::json::object());
  EXPECT_TRUE(Open().ok()) << Open().status();
  SetKey("rank_pattern", {{"q_proj", 8}});
  EXPECT_THAT(Error(), HasSubstr("`rank_pattern` is {\"q_proj\":8}"));
  SetKey("rank_pattern", nullptr);
  SetKey("some_new_variant", true);
  EXPECT_THAT(Error(), HasSubstr("`some_new_variant`"));
  SetKey("some_new_variant", false);
  SetKey("init_lora_weights", "pissa");
  EXPECT_THAT(Error(), HasSubstr("`init_lora_weights` is \"pissa\""));
  SetKey("init_lora_weights", true);
  SetKey("target_parameters", {"mlp.experts.gate_up_proj"});
  EXPECT_THAT(Error(), HasSubstr("names experts' gate_up_proj without down_proj"));
  SetKey("target_parameters", {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"});
  SetKey("r", 0);
  EXPECT_THAT(Error(), HasSubstr("`r` and `lora_alpha`"));
  SetKey("peft_type", "IA3");
  EXPECT_THAT(Error(), HasSubstr("`peft_type` is not LORA"));
}

TEST_F(PeftAdapterOpenTest, NoAdapter_SaysSo) {
  fs::remove(file_);
  EXPECT_THAT(Error(), HasSubstr("has no adapter_model.safetensors"));
  fs::remove(directory_.path() / "adapter/adapter_config.json");
  EXPECT_THAT(Error(), HasSubstr("it is not a PEFT adapter's directory"));
}

}  // namespace
}  // namespace temper
