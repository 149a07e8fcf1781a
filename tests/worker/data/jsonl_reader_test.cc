// SPDX-License-Identifier: Apache-2.0
#include "worker/data/jsonl_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/worker/data/data_file.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::vector<std::pair<int64_t, std::string>> ReadAll(const std::string& uri) {
  std::vector<std::pair<int64_t, std::string>> lines;
  absl::StatusOr<std::unique_ptr<RecordReader>> reader = JsonlReader::Open(uri);
  EXPECT_TRUE(reader.ok()) << reader.status();
  if (!reader.ok()) return lines;
  while (true) {
    absl::StatusOr<std::optional<Record>> line = (*reader)->Next();
    EXPECT_TRUE(line.ok()) << line.status();
    if (!line.ok() || !line->has_value()) return lines;
    lines.emplace_back((*line)->number, (*line)->text);
  }
}

TEST(JsonlReader, Next_BlankLinesAndCarriageReturns_AreSkippedAndCounted) {
  const DataFile file("\xef\xbb\xbf{\"a\": 1}\r\n\n  \t\n{\"b\": 2}\n{\"c\": 3}");
  EXPECT_THAT(ReadAll(file.uri()), ElementsAre(Pair(1, "{\"a\": 1}"), Pair(4, "{\"b\": 2}"), Pair(5, "{\"c\": 3}")));
}

TEST(JsonlReader, Next_EmptyFile_HasNoLine) {
  EXPECT_TRUE(ReadAll(DataFile("").uri()).empty());
  EXPECT_TRUE(ReadAll(DataFile("\n\n").uri()).empty());
}

TEST(JsonlReader, Next_LinesAcrossReads_AreWhole) {
  // Longer than one read of the file (4 MiB), and many that straddle the border of the next ones.
  const std::string longest(9 << 20, 'x');
  std::string text = longest + "\n";
  const std::string line(1021, 'y');
  for (int i = 0; i < 9000; ++i) text += line + std::to_string(i) + "\n";
  const DataFile file(text);
  const auto lines = ReadAll(file.uri());
  ASSERT_EQ(lines.size(), 9001);
  EXPECT_EQ(lines[0].second, longest);
  for (int i = 0; i < 9000; ++i) ASSERT_EQ(lines[i + 1].second, line + std::to_string(i));
}

TEST(JsonlReader, Open_MissingFile_NamesIt) {
  const absl::Status status = JsonlReader::Open("/nowhere/at/all.jsonl").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("there is no data file /nowhere/at/all.jsonl. Correct data.uri"));
}

TEST(JsonlReader, Open_NoFile_IsRefused) {
  EXPECT_EQ(JsonlReader::Open("/some/directory/").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(JsonlReader::Open("data.jsonl").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(JsonlReader, FractionRead_FollowsTheLines) {
  const std::string line(1 << 20, 'x');
  std::string text;
  for (int i = 0; i < 10; ++i) text += line + "\n";
  const DataFile file(text);
  absl::StatusOr<std::unique_ptr<RecordReader>> reader = JsonlReader::Open(file.uri());
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->fraction_read(), 0);
  for (int i = 1; i <= 10; ++i) {
    ASSERT_TRUE((*reader)->Next().ok());
    EXPECT_NEAR((*reader)->fraction_read(), i / 10.0, 1e-6);
  }
  ASSERT_TRUE((*reader)->Next().ok());
  EXPECT_EQ((*reader)->fraction_read(), 1);
}

TEST(JsonlReader, Open_FileUri_IsRead) {
  const DataFile file("{}\n");
  EXPECT_THAT(ReadAll("file://" + file.uri()), ElementsAre(Pair(1, "{}")));
}

}  // namespace
}  // namespace temper
