// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/data/character_model.h"
#include "tests/worker/data/data_file.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// "U:" user text "\n" "A:" assistant text </s>
constexpr char kTemplate[] =
    "{% for m in messages %}{{ 'A:' + m.content + eos_token if m.role == 'assistant' else 'U:' + m.content + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}A:{% endif %}";

std::string Line(const std::string& user, const std::string& assistant) {
  return R"({"messages": [{"role": "user", "content": ")" + user + R"("}, {"role": "assistant", "content": ")" +
         assistant + "\"}]}\n";
}

class SampleSetTest : public testing::Test {
 protected:
  absl::StatusOr<SampleSet> Read(const std::string& text, SampleOptions options = {.max_tokens = 20}) {
    const DataFile file(text);
    options.uri = file.uri();
    return SampleSet::Read(options, builder_);
  }

  Tokenizer tokenizer_ = CharacterTokenizer();
  absl::StatusOr<ChatTemplate> template_ = CompileTemplate(kTemplate);
  SampleBuilder builder_{tokenizer_, template_, "</s>"};
};

TEST_F(SampleSetTest, Read_KeepsTheOrderOfTheFile) {
  absl::StatusOr<SampleSet> samples = Read(Line("hi", "yes") + Line("", "no"));
  ASSERT_TRUE(samples.ok()) << samples.status();
  ASSERT_EQ(samples->size(), 2);
  EXPECT_EQ(samples->length(0), 11);
  EXPECT_EQ(samples->length(1), 8);
  EXPECT_THAT(samples->scored(1), ElementsAre(0, 0, 0, 0, 0, 1, 1, 1));
  EXPECT_EQ(samples->ids(1)[7], 2);  // </s>
  EXPECT_EQ(samples->statistics().read, 2);
  EXPECT_EQ(samples->statistics().kept, 2);
  EXPECT_EQ(samples->statistics().tokens, 19);
  EXPECT_EQ(samples->statistics().scored_tokens, 7);
}

TEST_F(SampleSetTest, Read_ManyThreads_GiveTheSame) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += Line(std::string(i % 7, 'u'), std::string(1 + i % 5, 'a'));
  absl::StatusOr<SampleSet> one = Read(text);
  absl::StatusOr<SampleSet> four = Read(text, {.max_tokens = 20, .threads = 4});
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_TRUE(four.ok()) << four.status();
  ASSERT_EQ(one->size(), 3000);
  ASSERT_EQ(four->size(), 3000);
  for (int i = 0; i < 3000; ++i) {
    ASSERT_EQ(one->ids(i), four->ids(i));
    ASSERT_EQ(one->scored(i), four->scored(i));
  }
}

TEST_F(SampleSetTest, Read_Overlong_IsTruncatedAndCounted) {
  // 5 + 10 + 1 tokens: ten stay, five of them scored.
  absl::StatusOr<SampleSet> samples = Read(Line("", "0123456789") + Line("", "ok"), {.max_tokens = 10});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->length(0), 10);
  EXPECT_EQ(samples->length(1), 8);
  EXPECT_EQ(samples->statistics().truncated, 1);
  EXPECT_EQ(samples->statistics().scored_tokens, 5 + 3);
}

TEST_F(SampleSetTest, Read_TruncatedBeforeTheAnswer_IsDroppedAndCounted) {
  absl::StatusOr<SampleSet> samples = Read(Line("a long question", "yes") + Line("", "ok"), {.max_tokens = 10});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->size(), 1);
  EXPECT_EQ(samples->statistics().read, 2);
  EXPECT_EQ(samples->statistics().truncated, 0);
  EXPECT_EQ(samples->statistics().dropped_overlong, 1);
}

TEST_F(SampleSetTest, Read_OverlongAndDrop_IsDroppedAndCounted) {
  absl::StatusOr<SampleSet> samples =
      Read(Line("", "0123456789") + Line("", "ok"), {.max_tokens = 10, .overlong = OverlongSamples::kDrop});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->size(), 1);
  EXPECT_EQ(samples->statistics().dropped_overlong, 1);
}

TEST_F(SampleSetTest, Read_NothingScored_IsRefusedAndCounted) {
  absl::StatusOr<SampleSet> samples =
      Read(Line("", "ok") + "\n" + R"({"messages": [{"role": "user", "content": "x"}]})" + "\n");
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->size(), 1);
  EXPECT_EQ(samples->statistics().refused, 1);
  EXPECT_THAT(samples->statistics().first_refusal, HasSubstr("data.jsonl, line 3: no token is scored"));
}

TEST_F(SampleSetTest, Read_NothingScoredAnywhere_IsAnErrorThatExplains) {
  const absl::Status status = Read(R"({"messages": [{"role": "user", "content": "x"}]})").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("none of the 1 samples in"));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("line 1: no token is scored: the conversation has no assistant"));
}

TEST_F(SampleSetTest, Read_EverythingTooLong_IsAnErrorThatExplains) {
  const absl::Status status = Read(Line("a long question", "yes"), {.max_tokens = 10}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 too long for 10 tokens. Raise max_sample_tokens"));
}

TEST_F(SampleSetTest, Read_EmptyFile_IsAnError) {
  const absl::Status status = Read("\n").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is empty"));
}

TEST_F(SampleSetTest, Read_BadLines_NamesTheFirst) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += Line("", "ok");
  text += "{\n" + Line("", "ok") + "[]\n";
  const absl::Status status = Read(text, {.max_tokens = 20, .threads = 4}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("data.jsonl, line 51: not valid JSON"));
}

TEST_F(SampleSetTest, Read_MixedForms_NamesBothLines) {
  std::string text = Line("", "ok") + "\n" + Line("", "ok");
  for (const auto& [line, form] : std::vector<std::pair<std::string, std::string>>{
           {R"({"text": "x"})", "a text {\"text\": \"…\"}"},
           {R"({"prompt": "x", "completion": "y"})", "prompt and completion as texts"},
           {R"({"prompt": [{"role": "user", "content": "x"}], "completion": [{"role": "assistant", "content": "x"}]})",
            "prompt and completion as messages"}}) {
    const absl::Status status = Read(text + line + "\n").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("data.jsonl, line 4: this sample is " + form));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("data.jsonl, line 1 is a conversation {\"messages\": […]}; all"));
  }
}

TEST_F(SampleSetTest, Read_Columns_AreHonoured) {
  const absl::StatusOr<SampleSet> samples =
      Read(R"({"body": "abc", "text": 5})", {.columns = {{"text", "body"}}, .max_tokens = 20});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->length(0), 4);
}

TEST_F(SampleSetTest, Read_TrainOnThatMeansNothing_IsAnErrorThatNamesTheLine) {
  const DataFile file("\n{\"text\": \"abc\"}");
  const SampleBuilder builder(tokenizer_, template_, "</s>", TrainOn::kAssistant);
  const absl::Status status = SampleSet::Read({.uri = file.uri(), .max_tokens = 20}, builder).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("data.jsonl, line 2: data.train_on is assistant, but"));
}

TEST_F(SampleSetTest, Read_TemplateRefuses_NamesTheLine) {
  const absl::StatusOr<ChatTemplate> strict = CompileTemplate(
      "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
      "{{ m.role + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}");
  const DataFile file(Line("", "ok") + R"({"messages": [{"role": "system", "content": "x"}]})");
  const absl::Status status =
      SampleSet::Read({.uri = file.uri(), .max_tokens = 50}, SampleBuilder(tokenizer_, strict, "</s>")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("line 2: the chat template refuses this conversation: no system"));
}

TEST_F(SampleSetTest, Read_Stopped_IsCancelled) {
  const std::atomic<bool> stop = true;
  EXPECT_EQ(Read(Line("", "ok"), {.max_tokens = 20, .stop = &stop}).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace temper
