// SPDX-License-Identifier: Apache-2.0
#include "worker/data/byte_source.h"

#include <arrow/result.h>
#include <arrow/util/compression.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/data/data_file.h"
#include "worker/data/jsonl_reader.h"

namespace temper {
namespace {

using ::testing::HasSubstr;

std::string Compress(const std::string& text, arrow::Compression::type type) {
  const auto codec = *arrow::util::Codec::Create(type);
  const auto* const input = reinterpret_cast<const uint8_t*>(text.data());
  const auto size = static_cast<int64_t>(text.size());
  std::string out(static_cast<size_t>(codec->MaxCompressedLen(size, input)), '\0');
  out.resize(static_cast<size_t>(
      *codec->Compress(size, input, static_cast<int64_t>(out.size()), reinterpret_cast<uint8_t*>(out.data()))));
  return out;
}

// The lines, each with "\n" behind it; or the error.
std::string ReadLines(const std::string& bytes, const std::string& name) {
  const DataFile file(bytes, name);
  absl::StatusOr<std::unique_ptr<RecordReader>> reader = JsonlReader::Open(file.uri());
  EXPECT_TRUE(reader.ok()) << reader.status();
  std::string lines;
  while (true) {
    const absl::StatusOr<std::optional<Record>> line = (*reader)->Next();
    if (!line.ok()) return line.status().ToString();
    if (!line->has_value()) return lines;
    lines += (*line)->text + "\n";
  }
}

struct Format {
  const char* name;
  arrow::Compression::type type;
};

class ByteSourceTest : public testing::TestWithParam<Format> {};

TEST_P(ByteSourceTest, Next_Compressed_GivesWhatWasCompressed) {
  std::string text;  // many pieces: about 20 MiB
  for (int i = 0; i < 2'000'000; ++i) text += std::to_string(i * 7919LL) + "\n";
  EXPECT_TRUE(ReadLines(Compress(text, GetParam().type), GetParam().name) == text);
}

TEST_P(ByteSourceTest, Next_FilesPutTogether_AreReadToTheEnd) {
  const std::string bytes = Compress("a\nb", GetParam().type) + Compress("c\n", GetParam().type);
  EXPECT_EQ(ReadLines(bytes, GetParam().name), "a\nbc\n");
}

TEST_P(ByteSourceTest, Next_CutOff_IsAnErrorThatNamesTheFile) {
  const std::string bytes = Compress("{\"text\": \"hello\"}\n", GetParam().type);
  for (size_t size = 1; size < bytes.size(); ++size) {
    const std::string error = ReadLines(bytes.substr(0, size), GetParam().name);
    EXPECT_THAT(error, HasSubstr(std::string(GetParam().name) + " ends in the middle of its compressed data")) << size;
  }
  EXPECT_EQ(ReadLines("", GetParam().name), "");
}

TEST_P(ByteSourceTest, Next_NotCompressed_IsAnError) {
  EXPECT_THAT(ReadLines("{\"text\": \"hello\"}\n", GetParam().name),
              HasSubstr(std::string(GetParam().name) + " is damaged"));
}

// 300 MiB of zeros in some hundred kB: the line is refused at its limit.
TEST_P(ByteSourceTest, Next_Bomb_EndsAtTheLongestLine) {
  const std::string bytes = Compress(std::string(size_t{300} << 20, 'x'), GetParam().type);
  ASSERT_LT(bytes.size(), 1 << 20);
  EXPECT_THAT(ReadLines(bytes, GetParam().name), HasSubstr("line 1: the line is longer than 256 MiB"));
}

INSTANTIATE_TEST_SUITE_P(Formats, ByteSourceTest,
                         testing::Values(Format{"data.jsonl.gz", arrow::Compression::GZIP},
                                         Format{"data.jsonl.zst", arrow::Compression::ZSTD}),
                         [](const auto& info) { return std::string(info.index == 0 ? "Gzip" : "Zstd"); });

}  // namespace
}  // namespace temper
