// SPDX-License-Identifier: Apache-2.0
#include "worker/data/preference_pair.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace temper {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

PreferencePair Parse(const std::string& line, const ColumnNames& columns = {}) {
  const absl::StatusOr<PreferencePair> pair = ParsePreferencePair(line, columns, "here");
  EXPECT_TRUE(pair.ok()) << pair.status();
  return pair.ok() ? *pair : PreferencePair();
}

TEST(ParsePreferencePair, Texts_HaveThePromptThatTheRecordHas) {
  const PreferencePair pair = Parse(R"({"prompt": "a b", "chosen": " cd", "rejected": " ce", "score": 1})");
  for (const Sample& sample : {pair.chosen, pair.rejected}) {
    EXPECT_EQ(sample.form, SampleForm::kPromptCompletion);
    EXPECT_EQ(sample.prompt, "a b");
  }
  EXPECT_EQ(pair.chosen.text, " cd");
  EXPECT_EQ(pair.rejected.text, " ce");
}

struct Texts {
  std::string name;
  std::string chosen, rejected;
  std::string prompt;  // that both begin with
};

class CommonPrompt : public testing::TestWithParam<Texts> {};

TEST_P(CommonPrompt, Texts_AreSplitWhereTheyDiffer) {
  const auto& [name, chosen, rejected, prompt] = GetParam();
  const PreferencePair pair = Parse(R"({"chosen": ")" + chosen + R"(", "rejected": ")" + rejected + R"("})");
  EXPECT_EQ(pair.chosen.prompt, prompt);
  EXPECT_EQ(pair.rejected.prompt, prompt);
  EXPECT_EQ(pair.chosen.prompt + pair.chosen.text, chosen);
  EXPECT_EQ(pair.rejected.prompt + pair.rejected.text, rejected);
}

INSTANTIATE_TEST_SUITE_P(Texts, CommonPrompt,
                         testing::Values(Texts{"Word", "The sky is blue.", "The sky is green.", "The sky is"},
                                         Texts{"InAWord", "abc", "abd", "ab"}, Texts{"Nothing", "abc", "xbc", ""},
                                         Texts{"OneBeginsWithTheOther", "abc", "abcdef", "ab"},
                                         Texts{"Empty", "", "abc", ""},
                                         // é and è differ in their second byte
                                         Texts{"InACharacter", "caf\xc3\xa9", "caf\xc3\xa8", "caf"}),
                         [](const auto& texts) { return texts.param.name; });

TEST(ParsePreferencePair, Messages_AreSplitWhereTheyDiffer) {
  const PreferencePair pair = Parse(
      R"({"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
                     {"role": "user", "content": "r"}, {"role": "assistant", "content": "good"}],
          "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
                       {"role": "user", "content": "r"}, {"role": "assistant", "content": "bad"}],
          "prompt": "q", "tools": [{"a": 1}]})");
  for (const Sample& sample : {pair.chosen, pair.rejected}) {
    EXPECT_EQ(sample.form, SampleForm::kPromptedConversation);
    EXPECT_EQ(sample.prompt_messages, 3);
    EXPECT_EQ(sample.conversation.messages.size(), 4);
    EXPECT_EQ(sample.conversation.variables.dump(), R"({"tools":[{"a":1}]})");
  }
  EXPECT_EQ(pair.chosen.conversation.messages[3]["content"], "good");
  EXPECT_EQ(pair.rejected.conversation.messages[3]["content"], "bad");
}

TEST(ParsePreferencePair, MessagesWithAPrompt_StandBehindIt) {
  const PreferencePair pair = Parse(
      R"({"question": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
          "chosen": [{"role": "assistant", "content": "good"}], "rejected": [{"role": "assistant", "content": "bad"}]})",
      {{"prompt", "question"}});
  EXPECT_EQ(pair.chosen.prompt_messages, 2);
  ASSERT_EQ(pair.rejected.conversation.messages.size(), 3);
  EXPECT_EQ(pair.rejected.conversation.messages[0]["role"], "system");
  EXPECT_EQ(pair.rejected.conversation.messages[2]["content"], "bad");
}

struct BadPair {
  std::string name;
  std::string line;
  std::string message;
  ColumnNames columns = {};
};

class ParsePreferencePairRefuses : public testing::TestWithParam<BadPair> {};

TEST_P(ParsePreferencePairRefuses, BadLine_SaysWhereAndWhat) {
  const absl::Status status = ParsePreferencePair(GetParam().line, GetParam().columns, "data.jsonl, line 3").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), StartsWith("data.jsonl, line 3: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Lines, ParsePreferencePairRefuses,
    testing::Values(
        BadPair{"NoPair", R"({"prompt": "a", "completion": "b"})",
                "the sample has no `chosen`; it has `prompt`, `completion`. Name the right fields in data.columns"},
        BadPair{
            "Half", R"({"chosen": "a", "b": "b"})", "the sample has no `other` (rejected)", {{"rejected", "other"}}},
        BadPair{"Mixed", R"({"chosen": "a", "rejected": []})", "`chosen` is string and `rejected` is array"},
        BadPair{"Number", R"({"chosen": "a", "rejected": 1})", "`rejected` must be a text, not number"},
        BadPair{"PromptOfMessages", R"({"prompt": [], "chosen": "a", "rejected": "b"})",
                "`prompt` must be a text, not array"},
        BadPair{"NoAnswer",
                R"({"chosen": [{"role": "user", "content": "q"}, {"role": "user", "content": "r"}],
                    "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})",
                "`chosen` has no assistant message behind the prompt"}),
    [](const auto& line) { return line.param.name; });

}  // namespace
}  // namespace temper
