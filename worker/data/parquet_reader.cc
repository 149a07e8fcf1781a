// SPDX-License-Identifier: Apache-2.0
#include "worker/data/parquet_reader.h"

#include <arrow/array.h>
#include <arrow/io/interfaces.h>
#include <arrow/memory_pool.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/storage/object_store.h"
#include "worker/data/json_line.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kRowsAtOnce = 256;
constexpr int64_t kPageBuffer = 1 << 20;
constexpr int64_t kMostMemory = int64_t{2} << 30;
constexpr std::array kFields = {
    "messages", "prompt",    "completion",           "text",           "chosen",          "rejected",
    "tools",    "documents", "chat_template_kwargs", "teacher_tokens", "teacher_logprobs"};

// One of our files, as Arrow wants to see it.
class StoredFile : public arrow::io::RandomAccessFile {
 public:
  explicit StoredFile(std::unique_ptr<ObjectReader> file) : file_(std::move(file)) {}

  arrow::Status Close() override {
    closed_ = true;
    return arrow::Status::OK();
  }
  bool closed() const override { return closed_; }
  arrow::Result<int64_t> Tell() const override { return position_; }
  arrow::Status Seek(int64_t position) override {
    position_ = position;
    return arrow::Status::OK();
  }
  arrow::Result<int64_t> GetSize() override { return file_->size(); }

  arrow::Result<int64_t> ReadAt(int64_t position, int64_t length, void* out) override {
    if (position < 0 || position > file_->size()) return arrow::Status::IOError("read beyond the end of the file");
    length = std::min(length, file_->size() - position);
    if (length <= 0) return 0;
    const absl::StatusOr<std::string> bytes = file_->ReadAt(position, length);
    if (!bytes.ok()) return arrow::Status::IOError(std::string(bytes.status().message()));
    std::copy(bytes->begin(), bytes->end(), static_cast<char*>(out));
    return length;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t length) override {
    // What a damaged file says about itself is no reason to allocate.
    length = std::clamp<int64_t>(length, 0, std::max<int64_t>(0, file_->size() - position));
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::ResizableBuffer> buffer, arrow::AllocateResizableBuffer(length));
    ARROW_ASSIGN_OR_RAISE(const int64_t read, ReadAt(position, length, buffer->mutable_data()));
    ARROW_RETURN_NOT_OK(buffer->Resize(read));
    return std::shared_ptr<arrow::Buffer>(std::move(buffer));
  }
  arrow::Result<int64_t> Read(int64_t length, void* out) override {
    ARROW_ASSIGN_OR_RAISE(const int64_t read, ReadAt(position_, length, out));
    position_ += read;
    return read;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t length) override {
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> buffer, ReadAt(position_, length));
    position_ += buffer->size();
    return buffer;
  }

 private:
  const std::unique_ptr<ObjectReader> file_;
  int64_t position_ = 0;
  bool closed_ = false;
};

arrow::Result<Json> ToJson(const arrow::Array& array, int64_t i);

template <typename ArrayType>
arrow::Result<Json> TextToJson(const arrow::Array& array, int64_t i) {
  return Json(std::string(static_cast<const ArrayType&>(array).GetView(i)));
}

template <typename ArrayType>
arrow::Result<Json> NumberToJson(const arrow::Array& array, int64_t i) {
  return Json(static_cast<const ArrayType&>(array).Value(i));
}

template <typename ArrayType>
arrow::Result<Json> ListToJson(const arrow::Array& array, int64_t i) {
  const auto& list = static_cast<const ArrayType&>(array);
  Json values = Json::array();
  for (int64_t k = 0; k < list.value_length(i); ++k) {
    ARROW_ASSIGN_OR_RAISE(Json value, ToJson(*list.values(), list.value_offset(i) + k));
    values.push_back(std::move(value));
  }
  return values;
}

arrow::Result<Json> StructToJson(const arrow::StructArray& array, int64_t i) {
  Json object = Json::object();
  for (int field = 0; field < array.num_fields(); ++field) {
    ARROW_ASSIGN_OR_RAISE(Json value, ToJson(*array.field(field), i));
    if (!value.is_null()) object[array.struct_type()->field(field)->name()] = std::move(value);
  }
  return object;
}

arrow::Result<Json> MapToJson(const arrow::MapArray& array, int64_t i) {
  Json object = Json::object();
  for (int64_t k = array.value_offset(i); k < array.value_offset(i + 1); ++k) {
    ARROW_ASSIGN_OR_RAISE(const Json key, ToJson(*array.keys(), k));
    if (!key.is_string()) return arrow::Status::TypeError("a map whose keys are not texts");
    ARROW_ASSIGN_OR_RAISE(object[key.get<std::string>()], ToJson(*array.items(), k));
  }
  return object;
}

arrow::Result<Json> ToJson(const arrow::Array& array, int64_t i) {
  if (array.IsNull(i)) return Json();
  switch (array.type_id()) {
    case arrow::Type::NA:
      return Json();
    case arrow::Type::BOOL:
      return NumberToJson<arrow::BooleanArray>(array, i);
    case arrow::Type::INT8:
      return NumberToJson<arrow::Int8Array>(array, i);
    case arrow::Type::INT16:
      return NumberToJson<arrow::Int16Array>(array, i);
    case arrow::Type::INT32:
      return NumberToJson<arrow::Int32Array>(array, i);
    case arrow::Type::INT64:
      return NumberToJson<arrow::Int64Array>(array, i);
    case arrow::Type::UINT8:
      return NumberToJson<arrow::UInt8Array>(array, i);
    case arrow::Type::UINT16:
      return NumberToJson<arrow::UInt16Array>(array, i);
    case arrow::Type::UINT32:
      return NumberToJson<arrow::UInt32Array>(array, i);
    case arrow::Type::UINT64:
      return NumberToJson<arrow::UInt64Array>(array, i);
    case arrow::Type::FLOAT:
      return NumberToJson<arrow::FloatArray>(array, i);
    case arrow::Type::DOUBLE:
      return NumberToJson<arrow::DoubleArray>(array, i);
    case arrow::Type::STRING:
      return TextToJson<arrow::StringArray>(array, i);
    case arrow::Type::LARGE_STRING:
      return TextToJson<arrow::LargeStringArray>(array, i);
    case arrow::Type::STRING_VIEW:
      return TextToJson<arrow::StringViewArray>(array, i);
    case arrow::Type::LIST:
      return ListToJson<arrow::ListArray>(array, i);
    case arrow::Type::LARGE_LIST:
      return ListToJson<arrow::LargeListArray>(array, i);
    case arrow::Type::FIXED_SIZE_LIST:
      return ListToJson<arrow::FixedSizeListArray>(array, i);
    case arrow::Type::STRUCT:
      return StructToJson(static_cast<const arrow::StructArray&>(array), i);
    case arrow::Type::MAP:
      return MapToJson(static_cast<const arrow::MapArray&>(array), i);
    case arrow::Type::DICTIONARY: {
      const auto& coded = static_cast<const arrow::DictionaryArray&>(array);
      return ToJson(*coded.dictionary(), coded.GetValueIndex(i));
    }
    default:
      return arrow::Status::TypeError("values of the type ", array.type()->ToString(), ", which a sample can't have");
  }
}

absl::Status Damaged(std::string_view uri, std::string_view why) {
  if (why.ends_with('.')) why.remove_suffix(1);
  return absl::InvalidArgumentError(absl::StrCat(std::string(uri), " is damaged, or not Parquet: ", std::string(why),
                                                 ". Write it again, or get it again"));
}

// The columns that a sample may have, of those of the file.
std::vector<int> WantedLeaves(const parquet::SchemaDescriptor& schema, const ColumnNames& columns) {
  std::set<std::string> wanted;
  for (const char* field : kFields) {
    const auto column = columns.find(field);
    wanted.insert(column == columns.end() ? field : column->second);
  }
  std::vector<int> leaves;
  for (int i = 0; i < schema.num_columns(); ++i) {
    if (wanted.contains(schema.GetColumnRoot(i)->name())) leaves.push_back(i);
  }
  return leaves;
}

absl::Status NoColumn(std::string_view uri, const parquet::SchemaDescriptor& schema) {
  std::vector<std::string> names;
  for (int i = 0; i < schema.group_node()->field_count(); ++i) {
    names.push_back(absl::StrCat("`", schema.group_node()->field(i)->name(), "`"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(uri), " has no column `messages`, `prompt` and `completion`, or `text`; it has ",
                   names.empty() ? "none" : absl::StrJoin(names, ", "),
                   ". Name the right column in data.columns, for example {messages: conversation}"));
}

}  // namespace

class ParquetReader::Table {
 public:
  Table(std::string_view uri, std::unique_ptr<ObjectReader> file)
      : uri_(uri), where_(absl::StrCat(uri_, ", row ")), file_(std::make_shared<StoredFile>(std::move(file))) {}

  absl::Status Open(const ColumnNames& columns) {
    try {
      parquet::ReaderProperties pages(&pool_);
      pages.enable_buffered_stream();
      pages.set_buffer_size(kPageBuffer);
      parquet::ArrowReaderProperties rows;
      rows.set_batch_size(kRowsAtOnce);
      rows.set_pre_buffer(false);
      parquet::arrow::FileReaderBuilder builder;
      if (const arrow::Status opened = builder.Open(file_, pages); !opened.ok()) return Damaged(uri_, opened.message());
      builder.memory_pool(&pool_);
      builder.properties(rows);
      auto reader = builder.Build();
      if (!reader.ok()) return Damaged(uri_, reader.status().message());
      reader_ = *std::move(reader);
      const parquet::FileMetaData& metadata = *reader_->parquet_reader()->metadata();
      rows_ = metadata.num_rows();
      const std::vector<int> leaves = WantedLeaves(*metadata.schema(), columns);
      if (leaves.empty()) return NoColumn(uri_, *metadata.schema());
      std::vector<int> groups(metadata.num_row_groups());
      for (int group = 0; group < metadata.num_row_groups(); ++group) groups[group] = group;
      auto batches = reader_->GetRecordBatchReader(groups, leaves);
      if (!batches.ok()) return Damaged(uri_, batches.status().message());
      batches_ = *std::move(batches);
    } catch (const std::exception& error) {
      return Damaged(uri_, error.what());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<Record>> Next() {
    try {
      while (batch_ == nullptr || next_in_batch_ == batch_->num_rows()) {
        auto batch = batches_->Next();
        if (!batch.ok()) return Damaged(uri_, batch.status().message());
        batch_ = *std::move(batch);
        next_in_batch_ = 0;
        if (batch_ == nullptr) return std::nullopt;
        columns_ = batch_->ToStructArray().ValueOrDie();
      }
      const int64_t number = ++number_;
      const auto row = StructToJson(*columns_, next_in_batch_++);
      if (!row.ok()) return InvalidSample(absl::StrCat(where_, number), row.status().message());
      return Record{row->dump(), number};
    } catch (const Json::type_error&) {
      return InvalidSample(absl::StrCat(where_, number_), "a text that is not UTF-8");
    } catch (const std::exception& error) {
      return Damaged(uri_, error.what());
    }
  }

  const std::string& where() const { return where_; }
  double fraction_read() const {
    return rows_ <= 0 ? 1.0 : std::min(1.0, static_cast<double>(number_) / static_cast<double>(rows_));
  }

 private:
  const std::string uri_;
  const std::string where_;
  arrow::CappedMemoryPool pool_{arrow::default_memory_pool(), kMostMemory};
  std::shared_ptr<StoredFile> file_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::unique_ptr<arrow::RecordBatchReader> batches_;
  std::shared_ptr<arrow::RecordBatch> batch_;
  std::shared_ptr<arrow::StructArray> columns_;  // of the batch
  int64_t rows_ = 0;                             // of the file, as it says
  int64_t next_in_batch_ = 0;
  int64_t number_ = 0;  // rows that were given out
};

ParquetReader::ParquetReader(std::unique_ptr<Table> table) : table_(std::move(table)) {}
ParquetReader::~ParquetReader() = default;

absl::StatusOr<std::unique_ptr<RecordReader>> ParquetReader::Open(std::string_view uri, const ColumnNames& columns) {
  absl::StatusOr<std::unique_ptr<ObjectReader>> file = OpenDataFile(uri);
  if (!file.ok()) return file.status();
  auto table = std::make_unique<Table>(uri, *std::move(file));
  const absl::Status opened = table->Open(columns);
  if (!opened.ok()) return opened;
  return std::unique_ptr<RecordReader>(new ParquetReader(std::move(table)));
}

absl::StatusOr<std::optional<Record>> ParquetReader::Next() { return table_->Next(); }
const std::string& ParquetReader::where() const { return table_->where(); }
double ParquetReader::fraction_read() const { return table_->fraction_read(); }

}  // namespace temper
