// SPDX-License-Identifier: Apache-2.0
#include "worker/data/validation_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/data/character_model.h"
#include "tests/worker/data/data_file.h"

namespace temper {
namespace {

class ValidationSetTest : public testing::Test {
 protected:
  static std::string Lines(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += R"({"text": ")" + std::string(1 + i % 5, 'x') + "\"}\n";
    return text;
  }

  const Tokenizer tokenizer_ = CharacterTokenizer();
  const absl::StatusOr<ChatTemplate> template_ = absl::NotFoundError("none");
  const SampleBuilder builder_{tokenizer_, template_, "</s>"};
};

TEST_F(ValidationSetTest, Read_PacksTheFirstSamples) {
  const DataFile file(Lines(100));
  // Two blocks and more.
  const SampleOptions options = {.sources = {{.uri = file.uri()}}, .max_tokens = 16, .whole_bytes = 1000};
  const absl::StatusOr<ValidationSet> set = ReadValidationSet(options, 70, 16, builder_, 1);
  ASSERT_TRUE(set.ok()) << set.status();
  size_t documents = 0;
  for (const MicroBatch& row : set->rows) {
    EXPECT_LE(row.num_tokens(), 16);
    documents += row.document_starts.size() - 1;
  }
  EXPECT_EQ(documents, 70);
  EXPECT_EQ(set->samples, 70);

  const absl::StatusOr<ValidationSet> all = ReadValidationSet(options, 1000, 16, builder_, 1);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->samples, 100);
}

TEST_F(ValidationSetTest, Read_NoData_IsAnError) {
  const DataFile file("");
  EXPECT_EQ(
      ReadValidationSet({.sources = {{.uri = file.uri()}}, .max_tokens = 16}, 10, 16, builder_, 1).status().code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace temper
