// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace temper {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(ParseSample, Conversation_KeepsMessagesAndVariables) {
  const absl::StatusOr<Sample> sample = ParseSample(
      R"({"id": 7, "messages": [{"content": "hi", "role": "user", "x": 1},
          {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]},
          {"role": "tool", "content": [{"type": "text", "text": "21"}]}, {"role": "assistant", "content": ""}],
          "tools": [{"z": 1, "a": 2}], "documents": null, "chat_template_kwargs": {"enable_thinking": false}})",
      {}, "here");
  ASSERT_TRUE(sample.ok()) << sample.status();
  EXPECT_EQ(sample->form, SampleForm::kConversation);
  const Conversation& conversation = sample->conversation;
  ASSERT_EQ(conversation.messages.size(), 4);
  EXPECT_EQ(conversation.messages[0].dump(), R"({"content":"hi","role":"user","x":1})");
  EXPECT_EQ(conversation.messages[2]["content"].dump(), R"([{"type":"text","text":"21"}])");
  EXPECT_EQ(conversation.variables.dump(), R"({"tools":[{"z":1,"a":2}],"enable_thinking":false})");
}

struct BadLine {
  std::string name;
  std::string line;
  std::string message;
  ColumnNames columns = {};
};

class ParseSampleRefuses : public testing::TestWithParam<BadLine> {};

TEST_P(ParseSampleRefuses, BadLine_SaysWhereAndWhat) {
  const absl::Status status = ParseSample(GetParam().line, GetParam().columns, "data.jsonl, line 3").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), StartsWith("data.jsonl, line 3: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Lines, ParseSampleRefuses,
    testing::Values(
        BadLine{"Malformed", R"({"messages": [)", "not valid JSON: column 15"},
        BadLine{"TwoObjects", R"({"messages": []} {})", "not valid JSON: column"},
        BadLine{"NumberBeyondDouble", R"({"text": "a", "weight": 1e999})", "not valid JSON: number overflow"},
        BadLine{"InvalidUtf8", "{\"messages\": [{\"role\": \"user\", \"content\": \"\xc3(\"}]}", "ill-formed UTF-8"},
        BadLine{"NotAnObject", R"(["messages"])", "a sample must be an object like {\"messages\": […]}, not array"},
        BadLine{
            "NoForm", R"({"id": 1, "conversation": []})",
            "the sample has no `messages`, no `prompt` with `completion` and no `text`; it has `id`, `conversation`. "
            "Name the right field in data.columns"},
        BadLine{"NoFields", "{}", "it has no fields at all"},
        BadLine{"TwoForms", R"({"messages": [], "text": "x"})",
                "has `messages` and `text`; only one can be trained on"},
        BadLine{"PromptAlone", R"({"prompt": "x"})", "has `prompt` but no `completion`"},
        BadLine{"CompletionAlone", R"({"completion": "x", "prompt": null})", "has `completion` but no `prompt`"},
        BadLine{"PromptAndMessages", R"({"prompt": "x", "completion": [{"role": "assistant", "content": "x"}]})",
                "`prompt` is string and `completion` is array; both must be texts, or both lists of messages"},
        BadLine{"PromptANumber", R"({"prompt": 1, "completion": "x"})", "`prompt` must be a text, not number"},
        BadLine{"CompletionAnObject", R"({"prompt": "x", "completion": {}})",
                "`completion` must be a text, not object"},
        BadLine{"TextANumber", R"({"text": 1})", "`text` must be a text, not number"},
        BadLine{"EmptyPrompt", R"({"prompt": [], "completion": [{"role": "assistant", "content": "x"}]})",
                "`prompt` is empty"},
        BadLine{"CompletionWithoutAnswer", R"({"prompt": [{"role": "user", "content": "x"}],
                "completion": [{"role": "user", "content": "x"}]})",
                "`completion` has no assistant message"},
        BadLine{"BadMessageInACompletion", R"({"prompt": [{"role": "user", "content": "x"}],
                "completion": [{"role": "bot", "content": "x"}]})",
                "completion[0].role \"bot\" is not one of"},
        BadLine{"RenamedFieldMissing",
                R"({"messages": []})",
                "has no `chat` (messages), no `prompt`",
                {{"messages", "chat"}}},
        BadLine{"RenamedFieldWrong", R"({"chat": [{"role": "bot"}]})", "chat[0].role \"bot\"", {{"messages", "chat"}}},
        BadLine{"RenamedTextWrong", R"({"body": 1})", "`body` (text) must be a text, not number", {{"text", "body"}}},
        BadLine{"RenamedToolsWrong",
                R"({"messages": [{"role": "user", "content": "x"}], "functions": 1})",
                "`functions` (tools) must be a list",
                {{"tools", "functions"}}},
        BadLine{"MessagesNotAList", R"({"messages": "x"})", "`messages` must be a list of messages, not string"},
        BadLine{"EmptyMessages", R"({"messages": []})", "`messages` is empty"},
        BadLine{"MessageNotAnObject", R"({"messages": ["x"]})", "messages[0] must be an object"},
        BadLine{"NoRole", R"({"messages": [{"content": "x"}]})", "messages[0] has no `role`"},
        BadLine{"ShareGpt", R"({"messages": [{"from": "human", "value": "x"}]})", "must become role/content"},
        BadLine{"RoleNotAText", R"({"messages": [{"role": 1, "content": "x"}]})",
                "messages[0].role must be a text, not number"},
        BadLine{"UnknownRole", R"({"messages": [{"role": "bot", "content": "x"}]})",
                "messages[0].role \"bot\" is not one of system, developer, user, assistant, tool"},
        BadLine{"NoContent", R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant"}]})",
                "messages[1] has no `content`"},
        BadLine{"ContentANumber", R"({"messages": [{"role": "user", "content": 5}]})",
                "messages[0].content must be a text or a list of texts, not number"},
        BadLine{"Image", R"({"messages": [{"role": "user", "content": [{"type": "image"}]}]})",
                "messages[0].content[0] is not {\"type\": \"text\""},
        BadLine{"CallsNotAList", R"({"messages": [{"role": "assistant", "content": "", "tool_calls": "f"}]})",
                "messages[0].tool_calls must be a list, not string"},
        BadLine{"ToolsNotAList", R"({"messages": [{"role": "user", "content": "x"}], "tools": "f"})",
                "`tools` must be a list, not string"},
        BadLine{"KwargsNotAnObject", R"({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": 1})",
                "`chat_template_kwargs` must be an object, not number"},
        BadLine{"TooDeep", "{\"messages\": " + std::string(200, '[') + std::string(200, ']') + "}",
                "nested more than 100"}),
    [](const auto& info) { return info.param.name; });

TEST(ParseSample, PromptAndCompletionInMessages_AreOneConversation) {
  const absl::StatusOr<Sample> sample = ParseSample(
      R"({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
          "completion": [{"role": "assistant", "content": "a"}], "tools": [{"x": 1}]})",
      {}, "here");
  ASSERT_TRUE(sample.ok()) << sample.status();
  EXPECT_EQ(sample->form, SampleForm::kPromptedConversation);
  EXPECT_EQ(sample->prompt_messages, 2);
  ASSERT_EQ(sample->conversation.messages.size(), 3);
  EXPECT_EQ(sample->conversation.messages[2]["content"], "a");
  EXPECT_EQ(sample->conversation.variables.dump(), R"({"tools":[{"x":1}]})");
}

TEST(ParseSample, Texts_AreTakenAsTheyAre) {
  const absl::StatusOr<Sample> pair = ParseSample(R"({"prompt": " q ", "completion": ""})", {}, "here");
  ASSERT_TRUE(pair.ok()) << pair.status();
  EXPECT_EQ(pair->form, SampleForm::kPromptCompletion);
  EXPECT_EQ(pair->prompt, " q ");
  EXPECT_EQ(pair->text, "");
  const absl::StatusOr<Sample> text = ParseSample(R"({"text": "x\n"})", {}, "here");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->form, SampleForm::kText);
  EXPECT_EQ(text->text, "x\n");
}

TEST(ParseSample, PromptBesideMessages_IsIgnored) {
  const absl::StatusOr<Sample> sample =
      ParseSample(R"({"prompt": "q", "messages": [{"role": "user", "content": "q"}]})", {}, "here");
  ASSERT_TRUE(sample.ok()) << sample.status();
  EXPECT_EQ(sample->form, SampleForm::kConversation);
}

TEST(ParseSample, Columns_ChooseAmongForms) {
  constexpr char kLine[] = R"({"messages": [{"role": "user", "content": "q"}], "text": "t", "body": "b"})";
  EXPECT_EQ(ParseSample(kLine, {{"text", "body"}}, "here")->text, "b");
  EXPECT_EQ(ParseSample(kLine, {{"text", "text"}}, "here")->text, "t");
  EXPECT_EQ(ParseSample(kLine, {{"messages", "messages"}}, "here")->form, SampleForm::kConversation);
  const absl::StatusOr<Sample> pair =
      ParseSample(R"({"q": "1", "a": "2"})", {{"prompt", "q"}, {"completion", "a"}}, "");
  ASSERT_TRUE(pair.ok()) << pair.status();
  EXPECT_EQ(pair->prompt, "1");
  EXPECT_EQ(pair->text, "2");
}

TEST(ParseSample, BracketsInTexts_AreNoNesting) {
  const std::string brackets(300, '[');
  EXPECT_TRUE(ParseSample(R"({"messages": [{"role": "user", "content": "\")" + brackets + "\"}]}", {}, "here").ok());
}

}  // namespace
}  // namespace temper
