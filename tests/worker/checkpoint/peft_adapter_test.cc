// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/peft_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

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
    named_ = {{"model.layers.0.self_attn.q_proj", adapters_[0].get()},
              {"model.layers.0.mlp.down_proj", adapters_[1].get()}};
    store_ = *ObjectStore::Open(directory_.path().string());
    publication_ = *Publication::Begin(*store_, "adapter", "job", 1);
    EXPECT_TRUE(ExportPeftAdapter({"/models/base", 2, 6.0}, named_, *publication_).ok());
  }

  const TemporaryDirectory directory_;
  const fs::path file_ = directory_.path() / "adapter/adapter_model.safetensors";
  std::vector<std::unique_ptr<LoraAdapter>> adapters_;
  std::vector<NamedAdapter> named_;
  std::unique_ptr<ObjectStore> store_;
  std::unique_ptr<Publication> publication_;
};

TEST_F(PeftAdapterTest, Config_NamesBaseRankAlphaAndTargets) {
  const nlohmann::json config = nlohmann::json::parse(*store_->Read("adapter/adapter_config.json"));
  EXPECT_EQ(config["peft_type"], "LORA");
  EXPECT_EQ(config["base_model_name_or_path"], "/models/base");
  EXPECT_EQ(config["r"], 2);
  EXPECT_EQ(config["lora_alpha"], 6.0);
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
  EXPECT_TRUE(ProvePeftAdapter(*store_, "adapter", named_).ok());
  std::string bytes = *store_->Read("adapter/adapter_model.safetensors");
  bytes.back() ^= 1;
  WriteFile(file_, bytes);
  const absl::Status status = ProvePeftAdapter(*store_, "adapter", named_);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("q_proj.lora_B.weight"));
}

TEST_F(PeftAdapterTest, Prove_AdapterMissing_IsDataLoss) {
  NamedAdapter third = named_[0];
  third.hf_module = "model.layers.1.self_attn.q_proj";
  named_.push_back(third);
  EXPECT_EQ(ProvePeftAdapter(*store_, "adapter", named_).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace temper
