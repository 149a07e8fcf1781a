// SPDX-License-Identifier: Apache-2.0
#include "worker/text/same_tokens.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

// And <end>, which is 3.
Tokenizer WithWords(const std::string& words) {
  const std::string json = absl::StrCat(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 3, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"<end>": 3, )",
                                        words, "}}}");
  auto tokenizer = Tokenizer::FromJson(json, "here");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(TokenDifference, SameVocabulary_IsNone) {
  EXPECT_EQ(TokenDifference(WithWords(R"("?": 0, "a": 1, "b": 2)"), WithWords(R"("b": 2, "?": 0, "a": 1)")), "");
}

TEST(TokenDifference, OtherTokens_SaysWhichAndHowMany) {
  EXPECT_EQ(TokenDifference(WithWords(R"("?": 0, "a": 1, "b": 2)"), WithWords(R"("?": 0, "b": 1, "a": 2)")),
            "id 1 is 'a' to the model and 'b' to the teacher, and 1 more id differs");
}

TEST(TokenDifference, TokensThatOneLacks_AreDifferences) {
  const Tokenizer few = WithWords(R"("?": 0, "a": 1, "b": 2)"), many = WithWords(R"("?": 0, "a": 1, "b": 2, "c": 4)");
  EXPECT_EQ(TokenDifference(few, many), "id 4 is no token to the model and 'c' to the teacher");
  EXPECT_EQ(TokenDifference(many, few), "id 4 is 'c' to the model and no token to the teacher");
}

}  // namespace
}  // namespace temper
