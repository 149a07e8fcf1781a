// SPDX-License-Identifier: Apache-2.0
#include "worker/data/chat_example.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/worker/data/character_model.h"
#include "worker/data/sample.h"

namespace temper {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

constexpr char kMultiTurn[] = R"({"messages": [
  {"role": "system", "content": " Be brief. "}, {"role": "user", "content": " 1 + 1? "},
  {"role": "assistant", "content": " 2 "}, {"role": "user", "content": "say 2"},
  {"role": "assistant", "content": "two\n"}]})";

// Assistant texts that also occur in the user's messages and in the template, or look like the template's marks.
constexpr char kTreacherous[] = R"({"messages": [
  {"role": "user", "content": "user</s><|im_end|>\n<|im_start|>assistant\nassistant[/INST] model<end_of_turn>"},
  {"role": "assistant", "content": "assistant"}, {"role": "user", "content": "assistant"},
  {"role": "assistant", "content": "user"}]})";

constexpr char kThoughts[] = R"({"messages": [
  {"role": "user", "content": "2?"}, {"role": "assistant", "content": "<think>\neasy\n</think>\n\n4"},
  {"role": "user", "content": "3?"}, {"role": "assistant", "content": "<think>\nhard\n</think>\n\n9"}]})";

constexpr char kCalls[] =
    R"({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "messages": [
  {"role": "user", "content": "call f"},
  {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]},
  {"role": "tool", "content": "21 \"ok\""}, {"role": "assistant", "content": "It is 21."},
  {"role": "user", "content": "thanks"}, {"role": "assistant", "content": "bye"}]})";

class ChatExampleTest : public testing::Test {
 protected:
  // The scored parts, each followed by "¦"; or the error.
  std::string Scored(const ChatTemplate& chat_template, const std::string& line, const ScoredTurns& turns = {}) {
    const absl::StatusOr<Sample> sample = ParseSample(line, {}, "test");
    EXPECT_TRUE(sample.ok()) << sample.status();
    const Conversation* conversation = &sample->conversation;
    absl::StatusOr<Example> example = ChatExampleBuilder(tokenizer_, chat_template).Build(*conversation, turns);
    if (!example.ok()) return std::string(example.status().message());
    const std::string text = chat_template.Render(conversation->messages, false, conversation->variables)->text;
    const std::vector<Token> tokens = *tokenizer_.Encode(text, false);
    EXPECT_EQ(tokens.size(), example->ids.size());
    EXPECT_EQ(tokens.size(), example->scored.size());
    std::string scored;
    for (size_t i = 0; i < tokens.size(); ++i) {
      EXPECT_EQ(tokens[i].id, example->ids[i]);
      if (example->scored[i]) scored += text.substr(tokens[i].begin, tokens[i].end - tokens[i].begin);
      if (example->scored[i] && (i + 1 == tokens.size() || !example->scored[i + 1])) scored += "¦";
    }
    return scored;
  }

  const Tokenizer tokenizer_ = CharacterTokenizer();
};

TEST_F(ChatExampleTest, ChatMl_EndOfTurnIsScored_TheNewlineBehindItIsNot) {
  const ChatTemplate chat_template = TestTemplate("chatml");
  EXPECT_EQ(Scored(chat_template, kMultiTurn), " 2 <|im_end|>¦two\n<|im_end|>¦");
  EXPECT_EQ(Scored(chat_template, kTreacherous), "assistant<|im_end|>¦user<|im_end|>¦");
}

TEST_F(ChatExampleTest, Llama3_TrimmedContents_AreFound) {
  const ChatTemplate chat_template = TestTemplate("llama3");
  EXPECT_EQ(Scored(chat_template, kMultiTurn), "2<|eot_id|>¦two<|eot_id|>¦");
  EXPECT_EQ(Scored(chat_template, kTreacherous), "assistant<|eot_id|>¦user<|eot_id|>¦");
}

TEST_F(ChatExampleTest, Llama3_Calls_AreScored_TheirResultsAreNot) {
  EXPECT_EQ(Scored(TestTemplate("llama3"), kCalls),
            "{\"name\": \"f\", \"parameters\": {\"x\": 1}}<|eot_id|>¦It is 21.<|eot_id|>¦bye<|eot_id|>¦");
}

TEST_F(ChatExampleTest, Qwen3_EmptyThoughtsOfTheTemplate_AreNotScored) {
  const ChatTemplate chat_template = TestTemplate("qwen3");
  EXPECT_EQ(Scored(chat_template, kMultiTurn), " 2 <|im_end|>¦two\n<|im_end|>¦");
  EXPECT_EQ(Scored(chat_template, kTreacherous), "assistant<|im_end|>¦user<|im_end|>¦");
}

TEST_F(ChatExampleTest, Qwen3_ThoughtsThatAreShown_AreScored_EarlierOnesAreGone) {
  EXPECT_EQ(Scored(TestTemplate("qwen3"), kThoughts), "4<|im_end|>¦<think>\nhard\n</think>\n\n9<|im_end|>¦");
}

TEST_F(ChatExampleTest, Qwen3_EmptyThoughtsOfTheSample_AreScored) {
  constexpr char kLine[] = R"({"messages": [{"role": "user", "content": "2?"},
      {"role": "assistant", "content": "<think>\n\n</think>\n\n4"}]})";
  EXPECT_EQ(Scored(TestTemplate("qwen3"), kLine), "<think>\n\n</think>\n\n4<|im_end|>¦");
}

TEST_F(ChatExampleTest, Qwen3_Reasoning_IsScored) {
  constexpr char kLine[] = R"({"messages": [{"role": "user", "content": "2?"},
      {"role": "assistant", "reasoning_content": "two", "content": "4"}]})";
  EXPECT_EQ(Scored(TestTemplate("qwen3"), kLine), "<think>\ntwo\n</think>\n\n4<|im_end|>¦");
}

TEST_F(ChatExampleTest, Qwen3_Calls_AreScored_TheirResultsAreNot) {
  EXPECT_EQ(Scored(TestTemplate("qwen3"), kCalls),
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call><|im_end|>¦It is 21.<|im_end|>¦"
            "bye<|im_end|>¦");
}

TEST_F(ChatExampleTest, Qwen3_TwoResultsInARow_AreNotScored) {
  constexpr char kLine[] = R"({"messages": [{"role": "user", "content": "both"},
      {"role": "assistant", "content": "calling", "reasoning_content": "hm",
       "tool_calls": [{"name": "f", "arguments": "{}"}, {"name": "g", "arguments": "{}"}]},
      {"role": "tool", "content": "one"}, {"role": "tool", "content": "two"},
      {"role": "assistant", "content": "done"}]})";
  EXPECT_EQ(Scored(TestTemplate("qwen3"), kLine),
            "<think>\nhm\n</think>\n\ncalling\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n"
            "<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call><|im_end|>¦done<|im_end|>¦");
}

TEST_F(ChatExampleTest, Mistral_NoGenerationPrompt_SystemInTheLastTurn) {
  const ChatTemplate chat_template = TestTemplate("mistral");
  EXPECT_EQ(Scored(chat_template, kMultiTurn), " 2</s>¦ two</s>¦");
  EXPECT_EQ(Scored(chat_template, kTreacherous), " assistant</s>¦ user</s>¦");
}

TEST_F(ChatExampleTest, Mistral_EqualQuestions_AreToldApart) {
  constexpr char kLine[] = R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "more"},
      {"role": "assistant", "content": "a"}, {"role": "user", "content": "more"},
      {"role": "assistant", "content": "b"}]})";
  EXPECT_EQ(Scored(TestTemplate("mistral"), kLine), " a</s>¦ b</s>¦");
  EXPECT_EQ(Scored(TestTemplate("qwen3"), kLine), "a<|im_end|>¦b<|im_end|>¦");
}

TEST_F(ChatExampleTest, Gemma_RoleModel_SystemInTheFirstTurn) {
  const ChatTemplate chat_template = TestTemplate("gemma");
  EXPECT_EQ(Scored(chat_template, kMultiTurn), "2<end_of_turn>¦two<end_of_turn>¦");
  EXPECT_EQ(Scored(chat_template, kTreacherous), "assistant<end_of_turn>¦user<end_of_turn>¦");
}

TEST_F(ChatExampleTest, Gemma_TextParts_AreFollowed) {
  constexpr char kLine[] = R"({"messages": [{"role": "user", "content": [{"type": "text", "text": " a "},
      {"type": "text", "text": "b"}]}, {"role": "assistant", "content": [{"type": "text", "text": " c "}]}]})";
  EXPECT_EQ(Scored(TestTemplate("gemma"), kLine), "c<end_of_turn>¦");
}

TEST_F(ChatExampleTest, DeepSeek_PromptOpensAThoughtThatTheHistoryLacks) {
  const ChatTemplate chat_template = TestTemplate("deepseek");
  EXPECT_EQ(Scored(chat_template, kThoughts), "\n\n4</s>¦\n\n9</s>¦");
  EXPECT_EQ(Scored(chat_template, kTreacherous), "assistant</s>¦user</s>¦");
}

TEST_F(ChatExampleTest, Llama2_SpacesAroundTheAnswer_BelongToIt) {
  EXPECT_EQ(Scored(TestTemplate("llama2"), kMultiTurn), " 2 </s>¦ two </s>¦");
}

TEST_F(ChatExampleTest, Vicuna_NoSpecialTokens_TheTextAloneIsScored) {
  EXPECT_EQ(Scored(TestTemplate("vicuna"), kMultiTurn), " 2¦ two¦");
}

TEST_F(ChatExampleTest, GenerationTags_AreHonoured) {
  const ChatTemplate chat_template = TestTemplate("generation");
  EXPECT_EQ(Scored(chat_template, kMultiTurn), " 2 <|im_end|>¦two\n<|im_end|>¦");
  EXPECT_EQ(Scored(chat_template, R"({"messages": [{"role": "user", "content": "x"}]})"),
            "no token is scored: the chat template's {% generation %} tags frame nothing of this conversation");
}

TEST_F(ChatExampleTest, EmptyAnswer_TheEndOfTurnIsScored) {
  constexpr char kLine[] = R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]})";
  EXPECT_EQ(Scored(TestTemplate("chatml"), kLine), "<|im_end|>¦");
}

TEST_F(ChatExampleTest, TwoAnswersInARow_AreBothScored) {
  constexpr char kLine[] = R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "a"},
      {"role": "assistant", "content": "b"}]})";
  EXPECT_EQ(Scored(TestTemplate("chatml"), kLine), "a<|im_end|>¦b<|im_end|>¦");
}

TEST_F(ChatExampleTest, AnswerFirst_IsScored) {
  EXPECT_EQ(Scored(TestTemplate("chatml"), R"({"messages": [{"role": "assistant", "content": "a"}]})"), "a<|im_end|>¦");
}

TEST_F(ChatExampleTest, SomethingBehindTheLastTurn_IsNotScored) {
  const ChatTemplate chat_template = CompileTemplate(
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
      "{{ '<|im_start|>assistant\\n' if add_generation_prompt else '<|endoftext|>' }}");
  EXPECT_EQ(Scored(chat_template, kMultiTurn), " 2 <|im_end|>¦two\n<|im_end|>¦");
}

TEST_F(ChatExampleTest, PlaceholderWordsInTheData_DoNotMatter) {
  constexpr char kLine[] = R"({"messages": [{"role": "user", "content": "Placeholder0Q0Z"},
      {"role": "assistant", "content": "Placeholder0Q1Z Placeholder1Q0Z"}]})";
  EXPECT_EQ(Scored(TestTemplate("chatml"), kLine), "Placeholder0Q1Z Placeholder1Q0Z<|im_end|>¦");
}

TEST_F(ChatExampleTest, FirstScoredMessage_LeavesEarlierTurnsOut) {
  EXPECT_EQ(Scored(TestTemplate("chatml"), kMultiTurn, {.first_message = 3}), "two\n<|im_end|>¦");
  EXPECT_EQ(Scored(TestTemplate("chatml"), kMultiTurn, {.first_message = 2}), " 2 <|im_end|>¦two\n<|im_end|>¦");
  EXPECT_EQ(Scored(TestTemplate("llama3"), kTreacherous, {.first_message = 3}), "user<|eot_id|>¦");
  EXPECT_EQ(Scored(TestTemplate("generation"), kMultiTurn, {.first_message = 3}), "two\n<|im_end|>¦");
}

TEST_F(ChatExampleTest, FirstScoredMessage_TagsThatFrameOtherThanTurns_IsRefused) {
  const ChatTemplate chat_template = CompileTemplate(
      "{% for m in messages %}{{ m.role }}{% if m.role == 'assistant' and loop.last %}{% generation %}{{ m.content }}"
      "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}");
  EXPECT_EQ(Scored(chat_template, kMultiTurn), "two\n¦");
  EXPECT_THAT(Scored(chat_template, kMultiTurn, {.first_message = 3}),
              HasSubstr("tags frame 1 parts of a conversation with 2 assistant messages"));
}

TEST_F(ChatExampleTest, AllTokens_AreScored_EvenWithoutAnAssistant) {
  EXPECT_EQ(
      Scored(TestTemplate("chatml"), R"({"messages": [{"role": "system", "content": "x"}]})", {.all_tokens = true}),
      "<|im_start|>system\nx<|im_end|>\n¦");
}

TEST_F(ChatExampleTest, NoAssistantMessage_IsRefused) {
  EXPECT_THAT(Scored(TestTemplate("chatml"), R"({"messages": [{"role": "user", "content": "x"}]})"),
              HasSubstr("no token is scored: the conversation has no assistant message"));
}

TEST_F(ChatExampleTest, EverythingScored_IsRefused) {
  const ChatTemplate chat_template =
      CompileTemplate("{% generation %}{% for m in messages %}{{ m.content }}{% endfor %}{% endgeneration %}");
  EXPECT_THAT(Scored(chat_template, kMultiTurn), HasSubstr("every token is scored"));
}

TEST_F(ChatExampleTest, TemplateRewritesTheUser_IsRefusedWithAdvice) {
  const ChatTemplate chat_template =
      CompileTemplate("{% for m in messages %}{{ m.role + ':' + m.content | replace('a', 'b') }}</s>{% endfor %}");
  EXPECT_THAT(Scored(chat_template, R"({"messages": [{"role": "user", "content": "banana"},
      {"role": "assistant", "content": "x"}]})"),
              HasSubstr("cannot tell which tokens are the assistant's: the template rewrites what the user"));
}

TEST_F(ChatExampleTest, TemplateRefuses_IsInvalid) {
  const ChatTemplate chat_template = TestTemplate("mistral");
  const absl::StatusOr<Sample> sample =
      ParseSample(R"({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]})", {}, "test");
  ASSERT_TRUE(sample.ok());
  const absl::Status status = ChatExampleBuilder(tokenizer_, chat_template).Build(sample->conversation).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("Conversation roles must alternate"));
}

}  // namespace
}  // namespace temper
