// SPDX-License-Identifier: Apache-2.0
#include "worker/data/teacher_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<TeacherTokens> Read(const std::string& json, const ColumnNames& columns = {}) {
  auto record = nlohmann::ordered_json::parse(json);
  const std::string where = "data.jsonl, line 3";
  constexpr std::array kForms = {"text"};
  return ReadTeacherTokens(SampleFields(record, columns, where, kForms), 10);
}

std::string ErrorOf(const std::string& tokens, const std::string& logprobs) {
  const auto read = Read(absl::StrCat(R"({"teacher_tokens": )", tokens, R"(, "teacher_logprobs": )", logprobs, "}"));
  EXPECT_TRUE(absl::IsInvalidArgument(read.status())) << read.status();
  EXPECT_THAT(std::string(read.status().message()), ::testing::StartsWith("data.jsonl, line 3: "));
  return std::string(read.status().message());
}

TEST(ReadTeacherTokens, Lists_AreRowsOfAnySize) {
  const auto read =
      Read(R"({"teacher_tokens": [[3, 1], [9]], "ours": [[-1, -2.5], [-0.5]]})", {{"teacher_logprobs", "ours"}});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(read->starts, ElementsAre(0, 2, 3));
  EXPECT_THAT(read->tokens, ElementsAre(3, 1, 9));
  EXPECT_THAT(read->logprobs, ElementsAre(-1, -2.5, -0.5));
}

TEST(ReadTeacherTokens, WhatCantBe_IsNamed) {
  EXPECT_THAT(std::string(Read(R"({"teacher_tokens": [[1]]})").status().message()),
              HasSubstr("the sample has no `teacher_logprobs`: method.distillation has no teacher"));
  EXPECT_THAT(ErrorOf("3", "[[-1]]"), HasSubstr("`teacher_tokens` must be a list, not number"));
  EXPECT_THAT(ErrorOf("[[1], [2]]", "[[-1]]"), HasSubstr("`teacher_tokens` has 2 lists, and `teacher_logprobs` 1"));
  EXPECT_THAT(ErrorOf("[[1], 2]", "[[-1], [-1]]"),
              HasSubstr("list 2 of `teacher_tokens` and `teacher_logprobs` is no list"));
  EXPECT_THAT(
      ErrorOf("[[1, 2]]", "[[-1]]"),
      HasSubstr("list 1 of `teacher_tokens` and `teacher_logprobs` differ: 2 tokens, but 1 of the log-probabilities"));
  EXPECT_THAT(ErrorOf("[[]]", "[[]]"), HasSubstr("must have 1 to 9 tokens, not 0"));
  EXPECT_THAT(ErrorOf("[[10]]", "[[-1]]"), HasSubstr("has the token 10, which is no id below 10"));
  EXPECT_THAT(ErrorOf("[[1.5]]", "[[-1]]"), HasSubstr("has the token 1.5, which is no id"));
  EXPECT_THAT(ErrorOf("[[1, 1]]", "[[-1, -2]]"), HasSubstr("has the token 1 twice"));
  EXPECT_THAT(ErrorOf("[[1]]", "[[\"a\"]]"), HasSubstr("has \"a\" as a log-probability"));
  EXPECT_THAT(ErrorOf("[[1, 2]]", "[[0.6, 0.4]]"), HasSubstr("has probabilities that sum to 3.3"));
}

TEST(TeacherTokens, Rows_AreCutOffAndAppended) {
  const TeacherTokens all = {.starts = {0, 2, 3, 5}, .tokens = {1, 2, 3, 4, 5}, .logprobs = {-1, -2, -3, -4, -5}};
  TeacherTokens some = all;
  some.Truncate(1);
  EXPECT_EQ(some.rows(), 1);
  EXPECT_THAT(some.tokens, ElementsAre(1, 2));
  some.Append(all, 1, 3);
  some.Append(all, 0, 0);
  EXPECT_EQ(some.starts, all.starts);
  EXPECT_EQ(some.tokens, all.tokens);
  EXPECT_EQ(some.logprobs, all.logprobs);
}

}  // namespace
}  // namespace temper
