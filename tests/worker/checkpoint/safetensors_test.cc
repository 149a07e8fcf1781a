// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/checkpoint/tiny_checkpoint.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string WithLength(std::string_view header, std::string_view data) {
  std::string bytes;
  for (size_t i = 0, length = header.size(); i < 8; ++i, length >>= 8) bytes += static_cast<char>(length & 0xff);
  bytes += header;
  bytes += data;
  return bytes;
}

absl::StatusOr<SafetensorsHeader> Parse(const std::string& bytes) {
  return ParseSafetensorsHeader(bytes, static_cast<int64_t>(bytes.size()), "some/file");
}

TEST(Safetensors, Header_TensorsInAnyOrder_AreSortedByTheirBytes) {
  const std::string bytes = WithLength(
      R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[2,10]},"__metadata__":{"format":"pt"},)"
      R"("empty":{"dtype":"F16","shape":[0,3],"data_offsets":[2,2]},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)"
      R"("c":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}}   )",
      "0123456789");
  const absl::StatusOr<SafetensorsHeader> header = Parse(bytes);
  ASSERT_TRUE(header.ok()) << header.status();
  std::vector<std::string> names;
  for (const SafetensorsEntry& entry : header->entries) names.push_back(entry.name);
  EXPECT_THAT(names, ElementsAre("a", "c", "empty", "b"));
  EXPECT_EQ(header->metadata.at("format"), "pt");
  EXPECT_EQ(bytes.substr(header->entries[3].begin, header->entries[3].size()), "23456789");
}

TEST(Safetensors, DamagedFiles_AreRefusedWithTheReason) {
  struct Case {
    std::string bytes;
    const char* message;
  };
  const std::string huge(8, '\xff');
  const Case cases[] = {
      {"", "only 0 bytes"},
      {"1234567", "only 7 bytes"},
      {huge + "{}", "claims a header of 18446744073709551615 bytes"},
      {WithLength("{}", "").substr(0, 9), "ends inside its header"},
      {WithLength("", ""), "not a JSON object"},
      {WithLength("[]", ""), "not a JSON object"},
      {WithLength(" {}", ""), "not a JSON object"},
      {WithLength("{", ""), "not a JSON object"},
      {WithLength("{\"\xff\": 1}", ""), "not a JSON object"},
      {WithLength("{}", "x"), "the last 1 bytes belong to no tensor"},
      {WithLength(R"({"a":1})", ""), "tensor a is not described by an object"},
      {WithLength(R"({"a":{"dtype":"U8","shape":[1]}})", "x"), "tensor a has no data_offsets"},
      {WithLength(R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,1]}})", "x"), "dtype that is no string"},
      {WithLength(R"({"a":{"dtype":"F7","shape":[1],"data_offsets":[0,1]}})", "x"), "unknown dtype F7"},
      {WithLength(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", "x"), "malformed shape"},
      {WithLength(R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", "x"), "malformed shape"},
      {WithLength(R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", "x"), "malformed shape"},
      {WithLength(R"({"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", ""), "2^63 bytes"},
      {WithLength(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", "x"), "malformed data_offsets"},
      {WithLength(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}})", "x"), "malformed data_offsets"},
      {WithLength(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]}})", "x"),
       "malformed data_offsets"},
      {WithLength(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "0123"), "takes 8 bytes"},
      {WithLength(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", "x"), "takes 1 bytes"},
      {WithLength(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "0123"), "tensor a ends 4 bytes after"},
      {WithLength(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],)"
                  R"("data_offsets":[1,3]}})",
                  "012"),
       "tensors a and b overlap"},
      {WithLength(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],)"
                  R"("data_offsets":[2,3]}})",
                  "012"),
       "1 bytes before tensor b belong to no tensor"},
      {WithLength(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],)"
                  R"("data_offsets":[0,1]}})",
                  "0"),
       "the name a twice"},
      {WithLength(R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", "0"),
       "the name dtype twice"},
      {WithLength(R"({"__metadata__":[]})", ""), "__metadata__ is not an object"},
      {WithLength(R"({"__metadata__":{"a":1}})", ""), "__metadata__.a is not a string"},
  };
  for (const Case& bad : cases) {
    const absl::Status status = Parse(bad.bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << bad.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr("some/file"));
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message));
  }
}

TEST(Safetensors, EveryTruncation_IsRefused) {
  const std::string bytes = SafetensorsBytes(TinyTensors(true));
  ASSERT_TRUE(Parse(bytes).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(Parse(bytes.substr(0, size)).status().code(), absl::StatusCode::kDataLoss) << size;
  }
}

TEST(Safetensors, File_WrittenAndMapped_GivesEqualTensorsWithoutACopy) {
  const TemporaryDirectory directory;
  const NamedTensors tensors = TinyTensors(true);
  const std::string path = directory.path() / "x.safetensors";
  WriteFile(path, SafetensorsBytes(tensors));
  const auto file = *SafetensorsFile::Open(path);
  ASSERT_EQ(file->header().entries.size(), tensors.size());
  EXPECT_EQ(file->header().data_begin % 64, 0);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const SafetensorsEntry& entry = file->header().entries[i];
    EXPECT_EQ(entry.name, tensors[i].first);
    const at::Tensor tensor = *file->Tensor(entry);
    EXPECT_EQ(tensor.scalar_type(), tensors[i].second.scalar_type());
    EXPECT_TRUE(at::equal(tensor, tensors[i].second)) << entry.name;
    EXPECT_EQ(tensor.const_data_ptr(), file->Tensor(entry)->const_data_ptr());
    file->Release(entry);
    EXPECT_TRUE(at::equal(tensor, tensors[i].second)) << entry.name;
  }
}

TEST(Safetensors, RowsAndElements_ArePartsOfTheTensor) {
  const TemporaryDirectory directory;
  const at::Tensor values = at::arange(24, at::kFloat).view({4, 3, 2});
  WriteFile(directory.path() / "x.safetensors", SafetensorsBytes({{"a", at::ones({5})}, {"x", values}}));
  const auto file = *SafetensorsFile::Open(directory.path() / "x.safetensors");
  const SafetensorsEntry& entry = file->header().entries[1];
  EXPECT_TRUE(at::equal(*file->Rows(entry, 1, 2), values.narrow(0, 1, 2)));
  EXPECT_TRUE(at::equal(*file->Elements(entry, 7, 9), values.view(-1).narrow(0, 7, 9)));
}

TEST(Safetensors, File_UnalignedData_IsStillReadable) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() / "x.safetensors";
  const float values[2] = {1.5f, -2.25f};
  WriteFile(path, WithLength(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"y":{"dtype":"F32","shape":[2],)"
                             R"("data_offsets":[1,9]}})",
                             "x" + std::string(reinterpret_cast<const char*>(values), sizeof(values))));
  const auto file = *SafetensorsFile::Open(path);
  EXPECT_TRUE(at::equal(*file->Tensor(file->header().entries[1]), at::tensor({1.5f, -2.25f})));
}

TEST(Safetensors, Open_MissingEmptyOrDirectory_SaysSo) {
  const TemporaryDirectory directory;
  EXPECT_EQ(SafetensorsFile::Open(directory.path() / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsFile::Open(directory.path()).status().code(), absl::StatusCode::kFailedPrecondition);
  WriteFile(directory.path() / "empty", "");
  EXPECT_THAT(std::string(SafetensorsFile::Open(directory.path() / "empty").status().message()),
              HasSubstr("it is empty"));
}

}  // namespace
}  // namespace temper
