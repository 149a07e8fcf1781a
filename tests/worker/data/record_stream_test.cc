// SPDX-License-Identifier: Apache-2.0
#include "worker/data/record_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/data/data_file.h"

namespace temper {
namespace {

std::string Lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "{\"text\": \"0123456789\"}\n";
  return text;
}

TEST(RecordStream, Next_SourcesOfDifferentSize_EndTogether) {
  const DataFile small(Lines(30), "small.jsonl"), large(Lines(300), "large.jsonl");
  absl::StatusOr<RecordStream> stream = RecordStream::Open({{.uri = small.uri()}, {.uri = large.uri()}}, {});
  ASSERT_TRUE(stream.ok()) << stream.status();
  std::vector<int> sources;
  std::vector<int64_t> next = {0, 0};
  while (true) {
    absl::StatusOr<std::optional<SourceRecord>> record = stream->Next();
    ASSERT_TRUE(record.ok()) << record.status();
    if (!record->has_value()) break;
    const SourceRecord& one = **record;
    EXPECT_EQ(one.ordinal, next[one.source]++);
    EXPECT_EQ(one.Where(), (one.source == 0 ? small.uri() : large.uri()) + ", line " + std::to_string(one.ordinal + 1));
    sources.push_back(one.source);
    EXPECT_NEAR(stream->fraction_read(), static_cast<double>(sources.size()) / 330, 0.02);
  }
  ASSERT_EQ(sources.size(), 330);
  EXPECT_EQ(stream->fraction_read(), 1);
  // Any eleventh of it has one of eleven from the small source, give or take.
  for (size_t begin = 0; begin + 33 <= sources.size(); begin += 33) {
    EXPECT_NEAR(static_cast<double>(std::count(sources.begin() + begin, sources.begin() + begin + 33, 0)), 3, 1);
  }
}

TEST(RecordStream, Next_EmptyFiles_AreNothing) {
  const DataFile files("", "a.jsonl");
  files.Add("b.jsonl", "{}\n");
  files.Add("c.jsonl", "\n");
  absl::StatusOr<RecordStream> stream = RecordStream::Open({{.uri = files.directory()}}, {});
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_TRUE((*stream->Next()).has_value());
  EXPECT_FALSE((*stream->Next()).has_value());
  EXPECT_EQ(stream->fraction_read(), 1);
}

TEST(RecordStream, Open_MissingSource_IsNotFound) {
  const DataFile file("{}\n");
  EXPECT_EQ(RecordStream::Open({{.uri = file.uri()}, {.uri = "/nowhere/x.jsonl"}}, {}).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace temper
