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

class PeftAdapterTest : public ::testing::Test {
 protected:
  PeftAdapterTest() {
    for (const char* site : {"layers.0.attn.q", "layers.0.mlp.down"}) {
      adapters_.push_back(MakeLoraAdapter({.rank = 2, .alpha = 6.0}, site, 0, 5, 3, at::kFloat));
      const WeightView b = {"b", &adapters_.back()->b_OR, 0, 5};
      StoreMaster(b, at::randn({5, 2}));
    }
    tensors_ = TensorsOfAdapter("model.layers.0.self_attn.q_proj", *adapters_[0]);
    for (const AdapterTensor& tensor : TensorsOfAdapter("model.layers.0.mlp.down_proj", *adapters_[1])) {
      tensors_.push_back(tensor);
    }
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
  const auto other = MakeLoraAdapter({.rank = 2, .alpha = 6.0, .seed = 7}, "layers.0.attn.q", 0, 5, 3, at::kFloat);
  ASSERT_FALSE(at::equal(other->a_RI.weight, adapters_[0]->a_RI.weight));
  ASSERT_TRUE((*adapter)->Load(TensorsOfAdapter("model.layers.0.self_attn.q_proj", *other)).ok());
  EXPECT_TRUE(at::equal(other->a_RI.weight, adapters_[0]->a_RI.weight));
  EXPECT_TRUE(at::equal(other->b_OR.weight, adapters_[0]->b_OR.weight));
}

TEST_F(PeftAdapterOpenTest, TensorMissingOrOfAnotherShape_IsNamed) {
  const auto adapter = *Open();
  const auto load = [&](const std::string& module, int64_t in) {
    const auto other = MakeLoraAdapter({.rank = 2}, "layers.0.attn.q", 0, 5, in, at::kFloat);
    return std::string(adapter->Load(TensorsOfAdapter(module, *other)).message());
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
