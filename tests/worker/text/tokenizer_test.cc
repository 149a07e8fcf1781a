// SPDX-License-Identifier: Apache-2.0
#include "worker/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/storage/object_store.h"
#include "tests/worker/text/model_directory.h"

namespace temper {
namespace {

using ::testing::HasSubstr;

TEST(Tokenizer, Open_GivesIdsAndByteOffsets) {
  ModelDirectory model;
  model.Write("tokenizer.json", ModelDirectory::kWordTokenizer);
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Open(model.store());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  absl::StatusOr<std::vector<Token>> tokens = tokenizer->Encode("café <end>noir", false);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->size(), 3);
  EXPECT_EQ((*tokens)[0].id, 1);
  EXPECT_EQ((*tokens)[0].end, 5);  // é is two bytes
  EXPECT_EQ((*tokens)[1].id, 3);
  EXPECT_EQ((*tokens)[2].begin, 11);
  EXPECT_EQ((*tokens)[2].end, 15);
  EXPECT_EQ(tokenizer->vocab_size(), 4);
  EXPECT_EQ(tokenizer->max_id(), 3);
  EXPECT_EQ(tokenizer->TokenToId("noir"), 2);
  EXPECT_EQ(tokenizer->TokenToId("blanc"), std::nullopt);
  EXPECT_EQ(*tokenizer->IdToToken(3), "<end>");
  EXPECT_EQ(tokenizer->IdToToken(9).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(tokenizer->IsAdded(3));
  EXPECT_FALSE(tokenizer->IsAdded(2));
  EXPECT_EQ(*tokenizer->Decode({1, 2}), "café noir");
}

TEST(Tokenizer, Encode_EmptyText_IsEmpty) {
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::FromJson(ModelDirectory::kWordTokenizer, "here");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_TRUE(tokenizer->Encode("", true)->empty());
  EXPECT_EQ(*tokenizer->Decode({}), "");
}

TEST(Tokenizer, Encode_InvalidUtf8_IsAnError) {
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::FromJson(ModelDirectory::kWordTokenizer, "here");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->Encode("\xff", false).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Tokenizer, Open_TokensOnlyInTheConfig_AreAdded) {
  ModelDirectory model;
  model.Write("tokenizer.json", ModelDirectory::kWordTokenizer);
  model.Write("tokenizer_config.json", R"({"added_tokens_decoder": {
      "3": {"content": "<end>", "special": true}, "4": {"content": "<start>", "special": true}}})");
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Open(model.store());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->vocab_size(), 5);
  EXPECT_EQ(tokenizer->TokenToId("<start>"), 4);
  EXPECT_TRUE(tokenizer->IsAdded(4));
}

TEST(Tokenizer, Open_ConfigContradictsTheTokenizer_IsAnError) {
  ModelDirectory model;
  model.Write("tokenizer.json", ModelDirectory::kWordTokenizer);
  model.Write("tokenizer_config.json", R"({"added_tokens_decoder": {"9": {"content": "<start>"}}})");
  absl::Status status = Tokenizer::Open(model.store()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("gives the token \"<start>\" the id 9"));
}

TEST(Tokenizer, Open_NoTokenizer_SaysWhatToDo) {
  ModelDirectory model;
  absl::Status status = Tokenizer::Open(model.store()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no tokenizer.json in " + model.uri()));
  EXPECT_THAT(std::string(status.message()), HasSubstr("save_pretrained"));
}

TEST(Tokenizer, Open_SlowOnlyTokenizer_SaysThatItMustBeConverted) {
  ModelDirectory model;
  model.Write("tokenizer.model", "sentencepiece");
  absl::Status status = Tokenizer::Open(model.store()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("slow-only tokenizer. Convert it once with transformers"));
}

TEST(Tokenizer, Open_MalformedFile_NamesTheFile) {
  ModelDirectory model;
  model.Write("tokenizer.json", "{\"model\": ");
  absl::Status status = Tokenizer::Open(model.store()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/tokenizer.json is not a tokenizer"));
}

}  // namespace
}  // namespace temper
