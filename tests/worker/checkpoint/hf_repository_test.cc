// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/hf_repository.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/failure.h"
#include "tests/worker/checkpoint/tiny_checkpoint.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class HfRepositoryTest : public ::testing::Test {
 protected:
  const TemporaryDirectory directory_;
  const fs::path model_ = directory_.path() / "model";

  // Two shards and their index.
  void WriteShards(const char* weight_map) {
    fs::create_directories(model_);
    WriteFile(model_ / "config.json", R"({"architectures": ["Tiny"]})");
    WriteFile(model_ / "one.safetensors", SafetensorsBytes({{"a", at::ones({2})}, {"b", at::ones({3})}}));
    WriteFile(model_ / "two.safetensors", SafetensorsBytes({{"c", at::ones({4})}}));
    WriteFile(model_ / "model.safetensors.index.json",
              std::string(R"({"metadata": {"total_size": 36}, "weight_map": )") + weight_map + "}");
  }

  absl::Status Refused() {
    const absl::Status status = HfRepository::Open(model_.string()).status();
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(CauseOf(status), FailureCause::kUserInput) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(model_.string()));
    return status;
  }
};

TEST_F(HfRepositoryTest, Open_SingleFile_FindsTensorsAndOtherFiles) {
  WriteRepository(model_, TinyTensors(true));
  WriteFile(model_ / "tokenizer.json", "{}");
  fs::create_directories(model_ / "sub/.cache");
  WriteFile(model_ / "sub/.cache/x", "");
  WriteFile(model_ / "sub/y", "");
  fs::create_directories(model_ / "adapter");
  WriteFile(model_ / "adapter/adapter_config.json", "{}");
  for (const char* weights : {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.gguf", "sub/model.onnx",
                              "consolidated.safetensors", "manifest.json", "verification.json"}) {
    WriteFile(model_ / weights, "");
  }
  const absl::StatusOr<std::unique_ptr<HfRepository>> repository = HfRepository::Open("file://" + model_.string());
  ASSERT_TRUE(repository.ok()) << repository.status();
  EXPECT_EQ((*repository)->directory(), model_.string());
  EXPECT_EQ((*repository)->config()["eos_token_id"], 2);
  EXPECT_THAT((*repository)->weight_files(), ElementsAre("model.safetensors"));
  EXPECT_THAT((*repository)->carried_files(), ElementsAre("sub/y", "tokenizer.json"));
  const RepositoryTensor* norm = (*repository)->FindTensor("norm.weight");
  ASSERT_NE(norm, nullptr);
  EXPECT_THAT(norm->entry.shape, ElementsAre(4));
  EXPECT_EQ((*repository)->FindTensor("nothing"), nullptr);
}

TEST_F(HfRepositoryTest, Open_Shards_TensorsKnowTheirFiles) {
  WriteShards(R"({"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})");
  const absl::StatusOr<std::unique_ptr<HfRepository>> repository = HfRepository::Open(model_.string());
  ASSERT_TRUE(repository.ok()) << repository.status();
  EXPECT_THAT((*repository)->weight_files(), ElementsAre("one.safetensors", "two.safetensors"));
  EXPECT_EQ((*repository)->FindTensor("c")->file, 1);
  EXPECT_EQ((*repository)->index_metadata()["total_size"], 36);
}

TEST_F(HfRepositoryTest, Open_NoModel_SaysWhatIsThereInstead) {
  EXPECT_EQ(Refused().code(), absl::StatusCode::kNotFound);
  WriteFile(model_, "a file");
  EXPECT_THAT(std::string(Refused().message()), HasSubstr("is a file"));
  fs::remove(model_);
  fs::create_directories(model_);
  EXPECT_THAT(std::string(Refused().message()), HasSubstr("has no config.json"));
  WriteFile(model_ / "adapter_config.json", "{}");
  EXPECT_THAT(std::string(Refused().message()), HasSubstr("is a PEFT adapter"));
  WriteFile(model_ / "config.json", "{\"a\": }");
  EXPECT_THAT(std::string(Refused().message()), HasSubstr("line 1, column 7"));
  WriteFile(model_ / "config.json", "{\"a\": 1e999}");
  EXPECT_THAT(std::string(Refused().message()), HasSubstr("number overflow"));
  WriteFile(model_ / "config.json", "[]");
  EXPECT_THAT(std::string(Refused().message()), HasSubstr("must hold a JSON object"));
  WriteFile(model_ / "config.json", "{}");
  EXPECT_THAT(std::string(Refused().message()), HasSubstr("has no weights"));
  WriteFile(model_ / "pytorch_model.bin", "");
  EXPECT_THAT(std::string(Refused().message()), HasSubstr("pickle files only (pytorch_model.bin)"));
  WriteFile(model_ / "model.safetensors", "");
  EXPECT_THAT(std::string(Refused().message()), HasSubstr("model.safetensors is not a sound safetensors file"));
}

TEST_F(HfRepositoryTest, Open_BadIndex_SaysWhichFileAndTensor) {
  struct Case {
    const char* weight_map;
    const char* message;
  };
  const Case cases[] = {
      {R"("x")", "`weight_map` must be an object"},
      {R"({})", "`weight_map` must be an object"},
      {R"({"a": 1})", "tensor a is said to be in 1"},
      {R"({"a": "../one.safetensors"})", "no safetensors file of this directory"},
      {R"({"a": "pytorch_model.bin"})", "no safetensors file of this directory"},
      {R"({"a": "one.safetensors", "b": "one.safetensors", "c": "three.safetensors"})",
       "names three.safetensors, which does not exist"},
      {R"({"a": "one.safetensors", "c": "two.safetensors"})", "holds tensor b, which the index does not know"},
      {R"({"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"})",
       "holds tensor b, which the index says to be in two.safetensors"},
      {R"({"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors", "d": "two.safetensors"})",
       "two.safetensors lacks tensor d"},
  };
  for (const Case& bad : cases) {
    WriteShards(bad.weight_map);
    EXPECT_THAT(std::string(Refused().message()), HasSubstr(bad.message));
  }
}

TEST_F(HfRepositoryTest, Open_TruncatedShard_NamesTheFile) {
  WriteShards(R"({"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})");
  fs::resize_file(model_ / "two.safetensors", fs::file_size(model_ / "two.safetensors") - 1);
  EXPECT_THAT(std::string(Refused().message()),
              ::testing::AllOf(HasSubstr("two.safetensors"), HasSubstr("tensor c"), HasSubstr("truncated")));
}

}  // namespace
}  // namespace temper
