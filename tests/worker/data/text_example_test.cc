// SPDX-License-Identifier: Apache-2.0
#include "worker/data/text_example.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/worker/data/character_model.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Words of a small vocabulary, of which "ab" is one and "a" and "b" are others; with BOS before any text if asked.
Tokenizer WordTokenizer(bool bos, const nlohmann::json& pre_tokenizer = nullptr,
                        const nlohmann::json& decoder = {{"type", "Fuse"}}) {
  nlohmann::json tokenizer = {{"version", "1.0"},
                              {"pre_tokenizer", pre_tokenizer},
                              {"decoder", decoder},
                              {"model",
                               {{"type", "BPE"},
                                {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {" ", 3}, {"▁", 4}, {"▁a", 5}}},
                                {"merges", {"a b", "▁ a"}}}}};
  nlohmann::json special = {
      {"single_word", false}, {"lstrip", false}, {"rstrip", false}, {"normalized", false}, {"special", true}};
  for (const auto& [id, content] : {std::pair{8, "<s>"}, std::pair{9, "</s>"}}) {
    tokenizer["model"]["vocab"][content] = id;
    special["id"] = id;
    special["content"] = content;
    tokenizer["added_tokens"].push_back(special);
  }
  if (bos) {
    tokenizer["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
          {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
          {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}}}},
        {"pair", {{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "B"}, {"type_id", 1}}}}}},
        {"special_tokens",
         {{"<s>", {{"id", "<s>"}, {"ids", {8}}, {"tokens", {"<s>"}}}},
          {"</s>", {{"id", "</s>"}, {"ids", {9}}, {"tokens", {"</s>"}}}}}}};
  }
  return *Tokenizer::FromJson(tokenizer.dump(), "test");
}

TextExampleBuilder Builder(const Tokenizer& tokenizer) { return *TextExampleBuilder::Create(tokenizer, "</s>"); }

TEST(TextExampleBuilder, Text_AllIsScored_EosBehind) {
  const Tokenizer tokenizer = WordTokenizer(/*bos=*/false);
  const absl::StatusOr<Example> example = Builder(tokenizer).Text("aab");
  ASSERT_TRUE(example.ok()) << example.status();
  EXPECT_THAT(example->ids, ElementsAre(0, 2, 9));
  EXPECT_THAT(example->scored, ElementsAre(1, 1, 1));
}

TEST(TextExampleBuilder, Text_EosThatIsSpelledOut_IsNotDoubled) {
  const Tokenizer tokenizer = WordTokenizer(/*bos=*/false);
  EXPECT_THAT(Builder(tokenizer).Text("a</s>")->ids, ElementsAre(0, 9));
}

TEST(TextExampleBuilder, Text_PostProcessor_BosOnceAndEosOnce) {
  const Tokenizer tokenizer = WordTokenizer(/*bos=*/true);
  EXPECT_THAT(Builder(tokenizer).Text("a")->ids, ElementsAre(8, 0, 9));
}

TEST(TextExampleBuilder, Text_Empty_IsRefused) {
  const Tokenizer tokenizer = WordTokenizer(/*bos=*/true);
  const absl::Status status = Builder(tokenizer).Text("").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the text is empty"));
}

TEST(TextExampleBuilder, Completion_IsScoredWithEos_PromptIsNot) {
  const Tokenizer tokenizer = WordTokenizer(/*bos=*/true);
  const absl::StatusOr<Example> example = Builder(tokenizer).Completion("ab", "ba", /*score_prompt=*/false);
  ASSERT_TRUE(example.ok()) << example.status();
  EXPECT_THAT(example->ids, ElementsAre(8, 2, 1, 0, 9));
  EXPECT_THAT(example->scored, ElementsAre(0, 0, 1, 1, 1));
  EXPECT_THAT(Builder(tokenizer).Completion("ab", "ba", /*score_prompt=*/true)->scored, ElementsAre(1, 1, 1, 1, 1));
}

TEST(TextExampleBuilder, Completion_TokenAcrossTheBorder_IsTakenApart) {
  const Tokenizer tokenizer = WordTokenizer(/*bos=*/true);
  const absl::StatusOr<Example> example = Builder(tokenizer).Completion("a", "b", /*score_prompt=*/false);
  ASSERT_TRUE(example.ok()) << example.status();
  EXPECT_THAT(example->ids, ElementsAre(8, 0, 1, 9));  // not "ab"
  EXPECT_THAT(example->scored, ElementsAre(0, 0, 1, 1));
}

TEST(TextExampleBuilder, Completion_Empty_EosIsScored_EvenBehindAPromptThatEndsWithIt) {
  const Tokenizer tokenizer = WordTokenizer(/*bos=*/false);
  const absl::StatusOr<Example> example = Builder(tokenizer).Completion("a</s>", "", /*score_prompt=*/false);
  ASSERT_TRUE(example.ok()) << example.status();
  EXPECT_THAT(example->ids, ElementsAre(0, 9, 9));
  EXPECT_THAT(example->scored, ElementsAre(0, 0, 1));
}

TEST(TextExampleBuilder, Completion_EmptyPrompt_AllButBosIsToBePredicted) {
  const Tokenizer tokenizer = WordTokenizer(/*bos=*/true);
  const absl::StatusOr<Example> example = Builder(tokenizer).Completion("", "ab", /*score_prompt=*/false);
  ASSERT_TRUE(example.ok()) << example.status();
  EXPECT_THAT(example->ids, ElementsAre(8, 2, 9));
  EXPECT_THAT(example->scored, ElementsAre(1, 1, 1));
}

// "▁" before every text: a completion behind a space would be read with one more space.
TEST(TextExampleBuilder, Completion_SpaceBeforeEveryText_IsRefusedWhenNoTokenBeginsThere) {
  const nlohmann::json metaspace = {
      {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", true}};
  const Tokenizer tokenizer = WordTokenizer(/*bos=*/false, metaspace, metaspace);
  const absl::Status status = Builder(tokenizer).Completion("b ", "a", /*score_prompt=*/false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("Move white space from the end of the prompt"));
  const absl::StatusOr<Example> moved = Builder(tokenizer).Completion("b", " a", /*score_prompt=*/false);
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_THAT(moved->ids, ElementsAre(4, 1, 5, 9));
  EXPECT_THAT(moved->scored, ElementsAre(0, 0, 1, 1));
}

TEST(TextExampleBuilder, Create_EosMissingOrUnknown_IsRefused) {
  const Tokenizer tokenizer = WordTokenizer(/*bos=*/false);
  EXPECT_THAT(std::string(TextExampleBuilder::Create(tokenizer, "").status().message()), HasSubstr("no `eos_token`"));
  EXPECT_THAT(std::string(TextExampleBuilder::Create(tokenizer, "<end>").status().message()),
              HasSubstr("\"<end>\", is no token of tokenizer.json"));
}

}  // namespace
}  // namespace temper
