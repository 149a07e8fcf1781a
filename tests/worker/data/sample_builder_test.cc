// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/data/character_model.h"

namespace temper {
namespace {

using ::testing::HasSubstr;

constexpr char kConversation[] = R"({"messages": [{"role": "user", "content": "p"},
    {"role": "assistant", "content": "q"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "s"},
    {"role": "user", "content": "t"}]})";
constexpr char kPrompted[] = R"({"prompt": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "q"},
    {"role": "user", "content": "r"}], "completion": [{"role": "assistant", "content": "s"},
    {"role": "user", "content": "t"}, {"role": "assistant", "content": "u"}]})";
constexpr char kPair[] = R"({"prompt": "pq", "completion": "rst"})";
constexpr char kText[] = R"({"text": "pq"})";

class SampleBuilderTest : public testing::Test {
 protected:
  // A mark for each token, 'x' for the scored ones; or the error. The template gives "Up" or "Aq$" for a message, each
  // character a token, "$" being </s>.
  std::string Marks(const char* line, TrainOn train_on) {
    const absl::StatusOr<Sample> sample = ParseSample(line, {}, "test");
    EXPECT_TRUE(sample.ok()) << sample.status();
    const absl::StatusOr<Example> example = SampleBuilder(tokenizer_, template_, "</s>", train_on).Build(*sample);
    if (!example.ok())
      return absl::StrCat(absl::StatusCodeToString(example.status().code()), ": ", example.status().message());
    EXPECT_EQ(example->ids.size(), example->scored.size());
    std::string marks;
    for (const uint8_t scored : example->scored) marks += scored ? 'x' : '.';
    return marks;
  }

  const Tokenizer tokenizer_ = CharacterTokenizer();
  absl::StatusOr<ChatTemplate> template_ = CompileTemplate(
      "{% for m in messages %}{{ 'A' + m.content + eos_token if m.role == 'assistant' else 'U' + m.content }}"
      "{% endfor %}{% if add_generation_prompt %}A{% endif %}");
};

TEST_F(SampleBuilderTest, Build_Conversation) {
  EXPECT_EQ(Marks(kConversation, TrainOn::kDefault), "...xx...xx..");
  EXPECT_EQ(Marks(kConversation, TrainOn::kAssistant), "...xx...xx..");
  EXPECT_EQ(Marks(kConversation, TrainOn::kLastTurn), "........xx..");
  EXPECT_EQ(Marks(kConversation, TrainOn::kAll), "xxxxxxxxxxxx");
  EXPECT_EQ(Marks(kConversation, TrainOn::kCompletion),
            "INVALID_ARGUMENT: data.train_on is completion, but this sample is a conversation {\"messages\": […]}, of "
            "which one can learn assistant, last_turn or all");
}

TEST_F(SampleBuilderTest, Build_PromptAndCompletionInMessages) {
  EXPECT_EQ(Marks(kPrompted, TrainOn::kDefault), "........xx...xx");
  EXPECT_EQ(Marks(kPrompted, TrainOn::kCompletion), "........xx...xx");
  EXPECT_EQ(Marks(kPrompted, TrainOn::kAssistant), "...xx...xx...xx");
  EXPECT_EQ(Marks(kPrompted, TrainOn::kLastTurn), ".............xx");
  EXPECT_EQ(Marks(kPrompted, TrainOn::kAll), "xxxxxxxxxxxxxxx");
}

TEST_F(SampleBuilderTest, Build_PromptAndCompletionInTexts) {
  EXPECT_EQ(Marks(kPair, TrainOn::kDefault), "..xxxx");
  EXPECT_EQ(Marks(kPair, TrainOn::kCompletion), "..xxxx");
  EXPECT_EQ(Marks(kPair, TrainOn::kAll), "xxxxxx");
  EXPECT_THAT(Marks(kPair, TrainOn::kAssistant),
              HasSubstr("data.train_on is assistant, but this sample is prompt and"));
  EXPECT_THAT(Marks(kPair, TrainOn::kLastTurn), HasSubstr("of which one can learn completion or all"));
}

TEST_F(SampleBuilderTest, Build_Text) {
  EXPECT_EQ(Marks(kText, TrainOn::kDefault), "xxx");
  EXPECT_EQ(Marks(kText, TrainOn::kAll), "xxx");
  for (TrainOn train_on : {TrainOn::kAssistant, TrainOn::kCompletion, TrainOn::kLastTurn}) {
    EXPECT_THAT(Marks(kText, train_on),
                HasSubstr("but this sample is a text {\"text\": \"…\"}, of which one can learn all"));
  }
}

TEST_F(SampleBuilderTest, Build_NoTemplate_OnlyConversationsFail) {
  template_ = absl::FailedPreconditionError("no chat template in /model");
  EXPECT_EQ(Marks(kText, TrainOn::kDefault), "xxx");
  EXPECT_EQ(Marks(kPair, TrainOn::kDefault), "..xxxx");
  EXPECT_EQ(Marks(kConversation, TrainOn::kDefault), "INVALID_ARGUMENT: no chat template in /model");
  EXPECT_EQ(Marks(kPrompted, TrainOn::kDefault), "INVALID_ARGUMENT: no chat template in /model");
}

TEST_F(SampleBuilderTest, Build_NoEosToken_OnlyTextsFail) {
  const absl::StatusOr<Sample> text = ParseSample(kText, {}, "test");
  const absl::StatusOr<Sample> chat = ParseSample(kConversation, {}, "test");
  const SampleBuilder builder(tokenizer_, template_, "");
  EXPECT_TRUE(builder.Build(*chat).ok());
  EXPECT_EQ(builder.Build(*text).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace temper
