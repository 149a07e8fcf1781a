// SPDX-License-Identifier: Apache-2.0
#include "worker/data/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace temper {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(ParseConversation, Valid_KeepsMessagesAndVariables) {
  absl::StatusOr<Conversation> conversation = ParseConversation(
      R"({"id": 7, "messages": [{"content": "hi", "role": "user", "x": 1},
          {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]},
          {"role": "tool", "content": [{"type": "text", "text": "21"}]}, {"role": "assistant", "content": ""}],
          "tools": [{"z": 1, "a": 2}], "documents": null, "chat_template_kwargs": {"enable_thinking": false}})",
      "here");
  ASSERT_TRUE(conversation.ok()) << conversation.status();
  EXPECT_EQ(conversation->messages.size(), 4);
  EXPECT_EQ(conversation->messages[0].dump(), R"({"content":"hi","role":"user","x":1})");
  EXPECT_EQ(conversation->variables.dump(), R"({"tools":[{"z":1,"a":2}],"enable_thinking":false})");
}

struct BadLine {
  std::string name;
  std::string line;
  std::string message;
};

class ParseConversationRefuses : public testing::TestWithParam<BadLine> {};

TEST_P(ParseConversationRefuses, BadLine_SaysWhereAndWhat) {
  const absl::Status status = ParseConversation(GetParam().line, "data.jsonl, line 3").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), StartsWith("data.jsonl, line 3: "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Lines, ParseConversationRefuses,
    testing::Values(
        BadLine{"Malformed", R"({"messages": [)", "not valid JSON: column 15"},
        BadLine{"TwoObjects", R"({"messages": []} {})", "not valid JSON: column"},
        BadLine{"InvalidUtf8", "{\"messages\": [{\"role\": \"user\", \"content\": \"\xc3(\"}]}", "ill-formed UTF-8"},
        BadLine{"NotAnObject", R"(["messages"])", "a sample must be an object {\"messages\": […]}, not array"},
        BadLine{"NoMessages", R"({"text": "x"})", "has no `messages`"},
        BadLine{"MessagesNotAList", R"({"messages": "x"})", "`messages` must be a list, not string"},
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

TEST(ParseConversation, BracketsInTexts_AreNoNesting) {
  const std::string brackets(300, '[');
  EXPECT_TRUE(ParseConversation(R"({"messages": [{"role": "user", "content": "\")" + brackets + "\"}]}", "here").ok());
}

}  // namespace
}  // namespace temper
