// SPDX-License-Identifier: Apache-2.0
#include "worker/data/sample_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/worker/data/character_model.h"
#include "tests/worker/data/data_file.h"
#include "worker/data/packed_row.h"

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

// The first block, which is everything where the test does not say otherwise.
struct ReadSamples : SampleSet {
  SampleStatistics statistics;
};

absl::StatusOr<ReadSamples> ReadFirst(const SampleOptions& options, const SampleBuilder& builder, int threads = 1) {
  absl::StatusOr<std::unique_ptr<SampleReader>> reader = SampleReader::Open(options, builder);
  if (!reader.ok()) return reader.status();
  absl::StatusOr<std::optional<SampleSet>> samples = (*reader)->Next(threads);
  if (!samples.ok()) return samples.status();
  return ReadSamples{**std::move(samples), (*reader)->statistics()};
}

class SampleReaderTest : public testing::Test {
 protected:
  absl::StatusOr<ReadSamples> Read(const std::string& text, SampleOptions options = {.max_tokens = 20},
                                   int threads = 1) {
    const DataFile file(text);
    ColumnNames columns;
    if (!options.sources.empty()) columns = options.sources[0].columns;
    options.sources = {{.uri = file.uri(), .columns = columns}};
    return ReadFirst(options, builder_, threads);
  }

  Tokenizer tokenizer_ = CharacterTokenizer();
  absl::StatusOr<ChatTemplate> template_ = CompileTemplate(kTemplate);
  SampleBuilder builder_{tokenizer_, template_, "</s>"};
};

std::string Pair(const std::string& prompt, const std::string& chosen, const std::string& rejected) {
  return R"({"prompt": ")" + prompt + R"(", "chosen": ")" + chosen + R"(", "rejected": ")" + rejected + "\"}\n";
}

TEST_F(SampleReaderTest, Pairs_AreTwoDocumentsOfOneSample) {
  const auto samples = Read(Pair("pq", "yes", "n") + Pair("r", "a", "bc"), {.pairs = true, .max_tokens = 20});
  ASSERT_TRUE(samples.ok()) << samples.status();
  ASSERT_EQ(samples->size(), 2);
  EXPECT_EQ(samples->documents_per_sample(), 2);
  EXPECT_EQ(samples->length(0), 6 + 4);
  EXPECT_THAT(samples->document(0, 0).scored, ElementsAre(0, 0, 1, 1, 1, 1));
  EXPECT_THAT(samples->document(0, 1).scored, ElementsAre(0, 0, 1, 1));
  EXPECT_EQ(samples->document(1, 1).ids.size(), 4);
  EXPECT_EQ(samples->statistics.tokens, 17);
  EXPECT_EQ(samples->statistics.scored_tokens, 11);
}

TEST_F(SampleReaderTest, PairsThatTeachNothing_AreLeftOut) {
  // A character is a token, and all are the same one: answers differ in their lengths.
  const std::string same = Pair("p", "a", "b"), far = Pair("pqrst", "a", "bc"), late = Pair("p", "qrstu", "qrstuv");
  const auto samples =
      Read(same + far + late + Pair("p", "qrstuvw", "x") + Pair("p", "a", "bc"), {.pairs = true, .max_tokens = 5});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->size(), 2);
  EXPECT_EQ(samples->statistics.refused, 1);
  EXPECT_THAT(samples->statistics.first_refusal,
              HasSubstr("line 1: the chosen answer and the rejected one are the same"));
  EXPECT_EQ(samples->statistics.dropped_overlong, 2);  // no answer is left, or no difference
  EXPECT_EQ(samples->statistics.truncated, 1);
}

TEST_F(SampleReaderTest, PairsOfTextsAndMessages_AreNotMixed) {
  const std::string messages =
      R"({"chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]})";
  const auto samples = Read(Pair("p", "a", "b") + messages, {.pairs = true, .max_tokens = 20});
  EXPECT_THAT(std::string(samples.status().message()), HasSubstr("line 2: this sample is a pair of messages"));
}

TEST_F(SampleReaderTest, PairWithoutAMethodForPairs_SaysSo) {
  const auto samples = Read(R"({"chosen": "a", "rejected": "b"})");
  EXPECT_THAT(std::string(samples.status().message()), HasSubstr("pairs are for jobs with method.preference"));
}

// With a list of one token for each of the first so many that are learned: 0, 1, …
std::string WithTeacher(const std::string& completion, int lists) {
  std::string tokens, logprobs;
  for (int i = 0; i < lists; ++i) {
    absl::StrAppend(&tokens, i == 0 ? "" : ", ", "[", i, "]");
    absl::StrAppend(&logprobs, i == 0 ? "" : ", ", "[-", i, ".5]");
  }
  return absl::StrCat(R"({"prompt": "p", "completion": ")", completion, R"(", "teacher_tokens": [)", tokens,
                      R"(], "teacher_logprobs": [)", logprobs, "]}\n");
}

TEST_F(SampleReaderTest, WhatATeacherHasSaid_GoesWithItsTokens) {
  const SampleOptions options = {.teacher_vocab = 19, .max_tokens = 5};
  // Of the second sample, which is cut off, a token and what is said of it go.
  const auto samples = Read(WithTeacher("ab", 3) + WithTeacher("cdefg", 6) + WithTeacher("h", 2), options);
  ASSERT_TRUE(samples.ok()) << samples.status();
  const MicroBatch row = PackRow(*samples, {2, 1}, 20);
  EXPECT_THAT(row.loss_mask_T, ElementsAre(1, 1, 0, 1, 1, 1, 1, 0));
  EXPECT_THAT(row.teacher.starts, ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_THAT(row.teacher.tokens, ElementsAre(0, 1, 0, 1, 2, 3));
  EXPECT_THAT(row.teacher.logprobs, ElementsAre(-0.5, -1.5, -0.5, -1.5, -2.5, -3.5));
  EXPECT_EQ(PackRow(*samples, {0}, 20).teacher.rows(), 3);
  // No other job looks at it.
  EXPECT_EQ(PackRow(*Read(WithTeacher("ab", 1)), {0}, 20).teacher.rows(), 0);
}

TEST_F(SampleReaderTest, TeacherOfOtherTokens_IsAnError) {
  const auto samples = Read(WithTeacher("ab", 3) + WithTeacher("cde", 3), {.teacher_vocab = 19, .max_tokens = 20});
  EXPECT_TRUE(absl::IsInvalidArgument(samples.status()));
  EXPECT_THAT(std::string(samples.status().message()),
              HasSubstr("line 2: teacher_tokens and teacher_logprobs have 3 lists, but 4 tokens of the sample are "
                        "learned: give one for each"));
}

TEST_F(SampleReaderTest, Read_KeepsTheOrderOfTheFile) {
  absl::StatusOr<ReadSamples> samples = Read(Line("hi", "yes") + Line("", "no"));
  ASSERT_TRUE(samples.ok()) << samples.status();
  ASSERT_EQ(samples->size(), 2);
  EXPECT_EQ(samples->length(0), 11);
  EXPECT_EQ(samples->length(1), 8);
  EXPECT_THAT(samples->scored(1), ElementsAre(0, 0, 0, 0, 0, 1, 1, 1));
  EXPECT_EQ(samples->ids(1)[7], 2);  // </s>
  EXPECT_EQ(samples->statistics.read, 2);
  EXPECT_EQ(samples->statistics.kept, 2);
  EXPECT_EQ(samples->statistics.tokens, 19);
  EXPECT_EQ(samples->statistics.scored_tokens, 7);
}

TEST_F(SampleReaderTest, Read_ManyThreads_GiveTheSame) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += Line(std::string(i % 7, 'u'), std::string(1 + i % 5, 'a'));
  absl::StatusOr<ReadSamples> one = Read(text);
  absl::StatusOr<ReadSamples> four = Read(text, {.max_tokens = 20}, 4);
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_TRUE(four.ok()) << four.status();
  ASSERT_EQ(one->size(), 3000);
  ASSERT_EQ(four->size(), 3000);
  for (int i = 0; i < 3000; ++i) {
    ASSERT_EQ(one->ids(i), four->ids(i));
    ASSERT_EQ(one->scored(i), four->scored(i));
  }
}

TEST_F(SampleReaderTest, Read_Overlong_IsTruncatedAndCounted) {
  // 5 + 10 + 1 tokens: ten stay, five of them scored.
  absl::StatusOr<ReadSamples> samples = Read(Line("", "0123456789") + Line("", "ok"), {.max_tokens = 10});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->length(0), 10);
  EXPECT_EQ(samples->length(1), 8);
  EXPECT_EQ(samples->statistics.truncated, 1);
  EXPECT_EQ(samples->statistics.scored_tokens, 5 + 3);
}

TEST_F(SampleReaderTest, Read_TruncatedBeforeTheAnswer_IsDroppedAndCounted) {
  absl::StatusOr<ReadSamples> samples = Read(Line("a long question", "yes") + Line("", "ok"), {.max_tokens = 10});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->size(), 1);
  EXPECT_EQ(samples->statistics.read, 2);
  EXPECT_EQ(samples->statistics.truncated, 0);
  EXPECT_EQ(samples->statistics.dropped_overlong, 1);
}

TEST_F(SampleReaderTest, Read_OverlongAndDrop_IsDroppedAndCounted) {
  absl::StatusOr<ReadSamples> samples =
      Read(Line("", "0123456789") + Line("", "ok"), {.max_tokens = 10, .overlong = OverlongSamples::kDrop});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->size(), 1);
  EXPECT_EQ(samples->statistics.dropped_overlong, 1);
}

TEST_F(SampleReaderTest, Read_NothingScored_IsRefusedAndCounted) {
  absl::StatusOr<ReadSamples> samples =
      Read(Line("", "ok") + "\n" + R"({"messages": [{"role": "user", "content": "x"}]})" + "\n");
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->size(), 1);
  EXPECT_EQ(samples->statistics.refused, 1);
  EXPECT_THAT(samples->statistics.first_refusal, HasSubstr("data.jsonl, line 3: no token is scored"));
}

TEST_F(SampleReaderTest, Read_PairsScoredAtTheirEnd_MarkTheLastTokenThatIsNoPadding) {
  const SampleBuilder builder(tokenizer_, template_, "</s>", TrainOn::kAll);
  const DataFile file(Pair("p", "ab", "c"));
  SampleOptions options = {.sources = {{.uri = file.uri()}}, .pairs = true, .scored_at_end = -1, .max_tokens = 20};
  const auto at_eos = ReadFirst(options, builder);
  ASSERT_TRUE(at_eos.ok()) << at_eos.status();
  EXPECT_THAT(at_eos->scored(0), ElementsAre(0, 0, 0, 1, 0, 0, 1));
  EXPECT_EQ(at_eos->statistics.scored_tokens, 2);
  EXPECT_THAT(PackRow(*at_eos, {0}, 10).loss_mask_T, ElementsAre(0, 0, 0, 1, 0, 0, 1));
  options.scored_at_end = 2;  // </s>
  EXPECT_THAT(ReadFirst(options, builder)->scored(0), ElementsAre(0, 0, 1, 0, 0, 1, 0));
  options.max_tokens = 3;  // what is cut off ends before it
  EXPECT_THAT(ReadFirst(options, builder)->scored(0), ElementsAre(0, 0, 1, 0, 1, 0));
}

TEST_F(SampleReaderTest, Read_NothingScoredAnywhere_IsAnErrorThatExplains) {
  const absl::Status status = Read(R"({"messages": [{"role": "user", "content": "x"}]})").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("none of 1 sample in"));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("line 1: no token is scored: the conversation has no assistant"));
}

TEST_F(SampleReaderTest, Read_EverythingTooLong_IsAnErrorThatExplains) {
  const absl::Status status = Read(Line("a long question", "yes"), {.max_tokens = 10}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 too long for 10 tokens. Raise max_sample_tokens"));
}

TEST_F(SampleReaderTest, Read_EmptyFile_IsAnError) {
  const absl::Status status = Read("\n").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is empty"));
}

TEST_F(SampleReaderTest, Read_BadLines_NamesTheFirst) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += Line("", "ok");
  text += "{\n" + Line("", "ok") + "[]\n";
  const absl::Status status = Read(text, {.max_tokens = 20}, 4).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("data.jsonl, line 51: not valid JSON"));
}

TEST_F(SampleReaderTest, Read_MixedForms_NamesBothLines) {
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

TEST_F(SampleReaderTest, Read_Directory_IsOneSetInTheOrderOfNames) {
  const DataFile files(Line("", "b") + Line("", "bb"), "b.jsonl");
  files.Add("a.jsonl", Line("", "a"));
  files.Add("c.jsonl", "");
  files.Add("notes.txt", "not data");
  absl::StatusOr<ReadSamples> samples =
      ReadFirst({.sources = {{.uri = files.directory()}}, .max_tokens = 20}, builder_);
  ASSERT_TRUE(samples.ok()) << samples.status();
  ASSERT_EQ(samples->size(), 3);
  EXPECT_EQ(samples->length(0), 7);
  EXPECT_EQ(samples->length(2), 8);
  files.Add("d.jsonl", "\n{\"text\": \"x\"}");
  const absl::Status status = ReadFirst({.sources = {{.uri = files.directory()}}, .max_tokens = 20}, builder_).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("d.jsonl, line 2: this sample is a text"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("a.jsonl, line 1 is a conversation"));
}

TEST_F(SampleReaderTest, Read_Columns_AreHonoured) {
  const absl::StatusOr<ReadSamples> samples =
      Read(R"({"body": "abc", "text": 5})", {.sources = {{.columns = {{"text", "body"}}}}, .max_tokens = 20});
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->length(0), 4);
}

TEST_F(SampleReaderTest, Read_TrainOnThatMeansNothing_IsAnErrorThatNamesTheLine) {
  const DataFile file("\n{\"text\": \"abc\"}");
  const SampleBuilder builder(tokenizer_, template_, "</s>", TrainOn::kAssistant);
  const absl::Status status = ReadFirst({.sources = {{.uri = file.uri()}}, .max_tokens = 20}, builder).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("data.jsonl, line 2: data.train_on is assistant, but"));
}

TEST_F(SampleReaderTest, Read_TemplateRefuses_NamesTheLine) {
  const absl::StatusOr<ChatTemplate> strict = CompileTemplate(
      "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
      "{{ m.role + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}");
  const DataFile file(Line("", "ok") + R"({"messages": [{"role": "system", "content": "x"}]})");
  const absl::Status status =
      ReadFirst({.sources = {{.uri = file.uri()}}, .max_tokens = 50}, SampleBuilder(tokenizer_, strict, "</s>"))
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("line 2: the chat template refuses this conversation: no system"));
}

TEST_F(SampleReaderTest, Next_MoreThanFits_ComesInBlocksThatGrow) {
  std::string text;
  for (int i = 0; i < 500; ++i) text += Line(std::string(i % 7, 'u'), "a");
  const DataFile file(text);
  const SampleOptions options = {.sources = {{.uri = file.uri()}}, .max_tokens = 20, .whole_bytes = 8000};
  absl::StatusOr<std::unique_ptr<SampleReader>> reader = SampleReader::Open(options, builder_);
  absl::StatusOr<std::unique_ptr<SampleReader>> skipping = SampleReader::Open(options, builder_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  ASSERT_TRUE(skipping.ok()) << skipping.status();
  EXPECT_FALSE((*reader)->whole());
  std::vector<int64_t> sizes;
  int64_t ordinal = 0;
  while (true) {
    EXPECT_LT((*reader)->fraction_read(), 1);
    absl::StatusOr<std::optional<SampleSet>> block = (*reader)->Next(2);
    ASSERT_TRUE(block.ok()) << block.status();
    ASSERT_TRUE(block->has_value());
    for (int64_t i = 0; i < (*block)->size(); ++i) ASSERT_EQ((*block)->ordinal(i), ordinal++);
    sizes.push_back((*block)->size());
    EXPECT_NEAR((*reader)->fraction_read(), static_cast<double>(ordinal) / 500, 0.02);
    if (ordinal == 500) break;
  }
  EXPECT_EQ((*reader)->fraction_read(), 1);
  EXPECT_FALSE((*(*reader)->Next(1)).has_value());
  EXPECT_EQ((*reader)->statistics().kept, 500);
  EXPECT_GT(sizes[3], 5 * sizes[0]);

  ASSERT_TRUE((*skipping)->Skip(3).ok());
  EXPECT_EQ((**(*skipping)->Next(1)).ordinal(0), sizes[0] + sizes[1] + sizes[2]);
  EXPECT_EQ((*skipping)->Skip(1000).code(), absl::StatusCode::kOutOfRange);
}

TEST_F(SampleReaderTest, Split_PutsEverySampleIntoOnePart) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += Line("u", "a");
  const DataFile file(text);
  SampleOptions options = {.sources = {{.uri = file.uri()}}, .max_tokens = 20};
  options.split = {.part = RecordSplit::Part::kTraining, .held_out_share = 0.1, .seed = 5};
  const absl::StatusOr<ReadSamples> training = ReadFirst(options, builder_);
  options.split.part = RecordSplit::Part::kHeldOut;
  const absl::StatusOr<ReadSamples> held_out = ReadFirst(options, builder_);
  ASSERT_TRUE(training.ok() && held_out.ok());
  EXPECT_EQ(training->size() + held_out->size(), 1000);
  EXPECT_NEAR(static_cast<double>(held_out->size()), 100, 30);
  std::set<int64_t> ordinals;
  for (int64_t i = 0; i < training->size(); ++i) ordinals.insert(training->ordinal(i));
  for (int64_t i = 0; i < held_out->size(); ++i) ordinals.insert(held_out->ordinal(i));
  EXPECT_EQ(ordinals.size(), 1000);
  options.split.held_out_share = 1e-9;
  EXPECT_THAT(std::string(ReadFirst(options, builder_).status().message()),
              HasSubstr("too few samples to be split: none is left for validation"));
}

TEST_F(SampleReaderTest, Read_Stopped_IsCancelled) {
  EXPECT_EQ(Read(Line("", "ok"), {.max_tokens = 20, .stopped = [] { return true; }}).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace temper
