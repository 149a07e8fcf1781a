// SPDX-License-Identifier: Apache-2.0
#include "worker/data/parquet_reader.h"

#include <arrow/api.h>
#include <arrow/io/memory.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <parquet/arrow/writer.h>

#include <nlohmann/json.hpp>

#include "tests/worker/data/data_file.h"

namespace temper {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<arrow::Array> Texts(const std::vector<std::string>& texts) {
  arrow::StringBuilder builder;
  EXPECT_TRUE(builder.AppendValues(texts).ok());
  return *builder.Finish();
}

std::string ParquetBytes(const std::vector<std::string>& names,
                         const std::vector<std::shared_ptr<arrow::Array>>& columns, int64_t rows_per_group = 1000) {
  std::vector<std::shared_ptr<arrow::Field>> fields;
  for (size_t i = 0; i < names.size(); ++i) fields.push_back(arrow::field(names[i], columns[i]->type()));
  const auto table = arrow::Table::Make(arrow::schema(fields), columns);
  const auto sink = *arrow::io::BufferOutputStream::Create();
  EXPECT_TRUE(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), sink, rows_per_group).ok());
  return (*sink->Finish())->ToString();
}

// messages: list of {role, content, name}, with null names.
std::shared_ptr<arrow::Array> Conversations(int count) {
  arrow::MemoryPool* pool = arrow::default_memory_pool();
  auto role = std::make_shared<arrow::StringBuilder>(pool), content = std::make_shared<arrow::StringBuilder>(pool),
       name = std::make_shared<arrow::StringBuilder>(pool);
  const auto type = arrow::struct_({arrow::field("role", arrow::utf8()), arrow::field("content", arrow::utf8()),
                                    arrow::field("name", arrow::utf8())});
  auto message = std::make_shared<arrow::StructBuilder>(
      type, pool, std::vector<std::shared_ptr<arrow::ArrayBuilder>>{role, content, name});
  arrow::ListBuilder list(pool, message);
  for (int i = 0; i < count; ++i) {
    EXPECT_TRUE(list.Append().ok());
    for (const char* who : {"user", "assistant"}) {
      EXPECT_TRUE(message->Append().ok());
      EXPECT_TRUE(role->Append(who).ok());
      EXPECT_TRUE(content->Append("text " + std::to_string(i)).ok());
      EXPECT_TRUE(name->AppendNull().ok());
    }
  }
  return *list.Finish();
}

absl::StatusOr<std::vector<std::string>> ReadAll(const std::string& uri, const ColumnNames& columns = {}) {
  absl::StatusOr<std::unique_ptr<RecordReader>> reader = ParquetReader::Open(uri, columns);
  if (!reader.ok()) return reader.status();
  std::vector<std::string> rows;
  while (true) {
    absl::StatusOr<std::optional<Record>> row = (*reader)->Next();
    if (!row.ok()) return row.status();
    if (!row->has_value()) break;
    rows.push_back((*row)->text);
    EXPECT_EQ((*row)->number, static_cast<int64_t>(rows.size()));
  }
  EXPECT_EQ((*reader)->fraction_read(), 1);
  return rows;
}

// Of one row: lists of one number each.
template <typename Builder, typename Number>
std::shared_ptr<arrow::Array> ListsOf(const std::vector<Number>& numbers) {
  arrow::MemoryPool* pool = arrow::default_memory_pool();
  const auto values = std::make_shared<Builder>(pool);
  const auto inner = std::make_shared<arrow::ListBuilder>(pool, values);
  arrow::ListBuilder outer(pool, inner);
  EXPECT_TRUE(outer.Append().ok());
  for (const Number number : numbers) {
    EXPECT_TRUE(inner->Append().ok());
    EXPECT_TRUE(values->Append(number).ok());
  }
  return *outer.Finish();
}

TEST(ParquetReader, Next_ColumnsOfEveryMethod_AreRead) {
  const DataFile file(
      ParquetBytes({"text", "chosen", "rejected", "teacher_tokens", "teacher_logprobs", "other"},
                   {Texts({"a"}), Texts({"b"}), Texts({"c"}), ListsOf<arrow::Int32Builder, int32_t>({3, 1}),
                    ListsOf<arrow::FloatBuilder, float>({-0.5F, -1.25F}), Texts({"d"})}),
      "x.parquet");
  const absl::StatusOr<std::vector<std::string>> rows = ReadAll(file.uri());
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 1);
  EXPECT_EQ(nlohmann::json::parse((*rows)[0]),
            nlohmann::json::parse(R"({"text": "a", "chosen": "b", "rejected": "c", "teacher_tokens": [[3], [1]],
                                      "teacher_logprobs": [[-0.5], [-1.25]]})"));
}

TEST(ParquetReader, Next_NestedColumns_BecomeJson) {
  arrow::Int64Builder numbers;
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(numbers.Append(i).ok());
  const DataFile file(ParquetBytes({"messages", "score"}, {Conversations(1000), *numbers.Finish()}, 300), "x.parquet");
  const absl::StatusOr<std::vector<std::string>> rows = ReadAll(file.uri());
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 1000);
  for (int i : {0, 299, 300, 999}) {
    const std::string text = "text " + std::to_string(i);
    EXPECT_EQ((*rows)[i], R"({"messages":[{"role":"user","content":")" + text +
                              R"("},{"role":"assistant","content":")" + text + R"("}]})");
  }
}

TEST(ParquetReader, Open_Columns_AreReadByTheirNames) {
  const DataFile file(ParquetBytes({"question", "answer", "text"}, {Texts({"q"}), Texts({"a"}), Texts({"t"})}),
                      "x.parquet");
  EXPECT_EQ(ReadAll(file.uri(), {{"prompt", "question"}, {"completion", "answer"}})->front(),
            R"({"question":"q","answer":"a","text":"t"})");
  EXPECT_EQ(ReadAll(file.uri())->front(), R"({"text":"t"})");
}

TEST(ParquetReader, Open_NoSuchColumn_SaysWhatThereIs) {
  const DataFile file(ParquetBytes({"body", "id"}, {Texts({"q"}), Texts({"a"})}), "x.parquet");
  const absl::Status status = ReadAll(file.uri()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("x.parquet has no column `messages`"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("it has `body`, `id`. Name the right column in data.columns"));
}

TEST(ParquetReader, Next_NotUtf8_NamesTheRow) {
  const DataFile file(ParquetBytes({"text"}, {Texts({"good", "b\xff"})}), "x.parquet");
  EXPECT_THAT(std::string(ReadAll(file.uri()).status().message()),
              HasSubstr("x.parquet, row 2: a text that is not UTF-8"));
}

TEST(ParquetReader, Next_TypeWithoutJson_NamesTheRow) {
  arrow::BinaryBuilder bytes;
  ASSERT_TRUE(bytes.Append("x").ok());
  const DataFile file(ParquetBytes({"text"}, {*bytes.Finish()}), "x.parquet");
  EXPECT_THAT(std::string(ReadAll(file.uri()).status().message()), HasSubstr("row 1: values of the type binary"));
}

// Whatever is wrong, it is found, and is not worth more memory than a good file.
TEST(ParquetReader, Open_DamagedAnywhere_IsAnErrorOrGoodRows) {
  const std::string good = ParquetBytes({"text"}, {Texts(std::vector<std::string>(100, "some text"))});
  int errors = 0;
  for (size_t at = 0; at < good.size(); at += 7) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x5a);
    const DataFile file(bad, "x.parquet");
    const absl::StatusOr<std::vector<std::string>> rows = ReadAll(file.uri());
    if (!rows.ok()) {
      EXPECT_EQ(rows.status().code(), absl::StatusCode::kInvalidArgument) << at << rows.status();
      EXPECT_THAT(std::string(rows.status().message()), HasSubstr("x.parquet"));
      ++errors;
    }
  }
  EXPECT_GT(errors, 10);
  for (const size_t size : {size_t{0}, size_t{4}, good.size() / 2, good.size() - 1}) {
    const DataFile file(good.substr(0, size), "x.parquet");
    EXPECT_THAT(std::string(ReadAll(file.uri()).status().message()), HasSubstr("is damaged, or not Parquet")) << size;
  }
}

}  // namespace
}  // namespace temper
