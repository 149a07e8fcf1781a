// SPDX-License-Identifier: Apache-2.0
// What ObjectStore promises, wherever it stores (TestStore says where).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/failure.h"
#include "common/storage/object_store.h"
#include "tests/common/storage/test_store.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class StoreConformanceTest : public ::testing::Test {
 protected:
  std::vector<std::string> Paths(std::string_view directory = "") {
    const std::vector<ObjectInfo> objects = *store_->List(directory);
    std::vector<std::string> paths;
    for (const ObjectInfo& object : objects) paths.push_back(object.path);
    return paths;
  }

  const TestStore store_;
};

// No two stretches of it are alike.
std::string Bytes(size_t size) {
  std::string bytes(size, '\0');
  uint32_t state = 1;
  for (char& byte : bytes) byte = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return bytes;
}

TEST_F(StoreConformanceTest, Write_ThenRead_GivesTheBytes) {
  const std::string bytes("a\0b\n", 4);
  ASSERT_TRUE(store_->Write("deep/down/object", bytes).ok());
  EXPECT_EQ(*store_->Read("deep/down/object"), bytes);
  EXPECT_TRUE(*store_->Exists("deep/down/object"));
  EXPECT_FALSE(*store_->Exists("deep/down"));
}

TEST_F(StoreConformanceTest, Write_ExistingObject_IsReplaced) {
  ASSERT_TRUE(store_->Write("object", "a long first version").ok());
  ASSERT_TRUE(store_->Write("object", "second").ok());
  EXPECT_EQ(*store_->Read("object"), "second");
}

TEST_F(StoreConformanceTest, Writer_NotClosed_LeavesNothingBehind) {
  {
    auto writer = *store_->Create("object");
    ASSERT_TRUE(writer->Write("half").ok());
    EXPECT_FALSE(*store_->Exists("object"));
    EXPECT_THAT(Paths(), IsEmpty());
  }
  EXPECT_FALSE(*store_->Exists("object"));
  EXPECT_THAT(Paths(), IsEmpty());
}

TEST_F(StoreConformanceTest, Writer_NotClosed_KeepsTheOldObject) {
  ASSERT_TRUE(store_->Write("object", "old").ok());
  {
    ASSERT_TRUE((*store_->Create("object"))->Write("new").ok());
  }
  EXPECT_EQ(*store_->Read("object"), "old");
}

TEST_F(StoreConformanceTest, ReadAt_Ranges_AreExact) {
  ASSERT_TRUE(store_->Write("object", "0123456789").ok());
  auto reader = *store_->OpenForRead("object");
  EXPECT_EQ(reader->size(), 10);
  EXPECT_EQ(*reader->ReadAt(3, 4), "3456");
  EXPECT_EQ(*reader->ReadAt(10, 0), "");
  EXPECT_EQ(reader->ReadAt(8, 3).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(reader->ReadAt(-1, 1).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_F(StoreConformanceTest, Read_LargerThanAllowed_IsRefused) {
  ASSERT_TRUE(store_->Write("object", "0123456789").ok());
  EXPECT_EQ(store_->Read("object", 9).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(StoreConformanceTest, List_Directory_IsRecursiveSortedAndRelativeToTheRoot) {
  for (const char* path : {"b/2", "b/1/x", "a", "bb/3"}) ASSERT_TRUE(store_->Write(path, path).ok());
  EXPECT_THAT(Paths(), ElementsAre("a", "b/1/x", "b/2", "bb/3"));
  EXPECT_THAT(Paths("b"), ElementsAre("b/1/x", "b/2"));
  EXPECT_THAT(Paths("nothing"), IsEmpty());
  EXPECT_EQ((*store_->List("b"))[0].size, 5);
}

TEST_F(StoreConformanceTest, Move_GivesAnotherPathAndReplacesWhatIsThere) {
  ASSERT_TRUE(store_->Write("a/one", "1").ok());
  ASSERT_TRUE(store_->Write("b/c/two", "2").ok());
  ASSERT_TRUE(store_->Move("a/one", "b/c/two").ok());
  EXPECT_EQ(*store_->Read("b/c/two"), "1");
  EXPECT_FALSE(*store_->Exists("a/one"));
  ASSERT_TRUE(store_->Move("b/c/two", "new/three").ok());
  EXPECT_EQ(*store_->Read("new/three"), "1");
  EXPECT_TRUE(absl::IsNotFound(store_->Move("a/one", "d")));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Move("new/three", "../out")));
}

TEST_F(StoreConformanceTest, Delete_ObjectsAndDirectories_IsIdempotent) {
  for (const char* path : {"a", "b/1", "b/c/2"}) ASSERT_TRUE(store_->Write(path, path).ok());
  EXPECT_TRUE(store_->Delete("a").ok());
  EXPECT_TRUE(store_->Delete("a").ok());
  EXPECT_TRUE(store_->DeleteDirectory("b").ok());
  EXPECT_TRUE(store_->DeleteDirectory("b").ok());
  EXPECT_THAT(Paths(), IsEmpty());
}

TEST_F(StoreConformanceTest, AnyCall_PathThatLeavesTheRoot_IsRefused) {
  for (const char* path : {"", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a/./b"}) {
    EXPECT_EQ(store_->OpenForRead(path).status().code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(store_->Write(path, "x").code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(store_->DeleteDirectory(path).code(), absl::StatusCode::kInvalidArgument) << path;
  }
}

TEST_F(StoreConformanceTest, Read_Missing_IsNotFoundWithThePath) {
  const absl::Status status = store_->Read("models/missing").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(store_->UriOf("models/missing")));
}

TEST_F(StoreConformanceTest, CheckWritable_NewPlace_LeavesNothing) {
  EXPECT_TRUE(store_->CheckWritable("new/place").ok());
  EXPECT_THAT(Paths(), IsEmpty());
}

TEST_F(StoreConformanceTest, Write_ManyParts_ComesBackWholeInAnyRange) {
  const std::string bytes = Bytes(25'000'003);
  {
    auto writer = *store_->Create("large");
    for (size_t begin = 0; begin < bytes.size(); begin += 3'333'333) {
      ASSERT_TRUE(writer->Write(std::string_view(bytes).substr(begin, 3'333'333)).ok());
    }
    ASSERT_TRUE(writer->Close().ok());
  }
  const auto reader = *store_->OpenForRead("large");
  ASSERT_EQ(reader->size(), static_cast<int64_t>(bytes.size()));
  EXPECT_TRUE(*reader->ReadAt(0, reader->size()) == bytes);
  EXPECT_TRUE(*reader->ReadAt(7'654'321, 17'000'000) == bytes.substr(7'654'321, 17'000'000));
  EXPECT_EQ(*reader->ReadAt(24'999'999, 4), bytes.substr(24'999'999));
}

TEST_F(StoreConformanceTest, Writer_ManyPartsNotClosed_LeavesNothingBehind) {
  {
    auto writer = *store_->Create("large");
    ASSERT_TRUE(writer->Write(Bytes(21 << 20)).ok());
  }
  EXPECT_THAT(Paths(), IsEmpty());
}

TEST_F(StoreConformanceTest, Write_Nothing_IsAnEmptyObject) {
  ASSERT_TRUE(store_->Write("empty", "").ok());
  EXPECT_EQ(*store_->Read("empty"), "");
  EXPECT_EQ((*store_->List(""))[0].size, 0);
}

TEST_F(StoreConformanceTest, Names_WithAnythingIn_AreKept) {
  for (const char* path : {"a b/c+d", "a%20b", "ü/日本", "x=1&y?z#"}) {
    ASSERT_TRUE(store_->Write(path, path).ok()) << path;
    EXPECT_EQ(*store_->Read(path), path);
  }
  EXPECT_THAT(Paths(), ElementsAre("a b/c+d", "a%20b", "x=1&y?z#", "ü/日本"));
}

TEST_F(StoreConformanceTest, ListDirectories_OneLevel_WithoutObjects) {
  for (const char* path : {"job/b/1", "job/a/x/2", "job/file"}) ASSERT_TRUE(store_->Write(path, path).ok());
  EXPECT_THAT(*store_->ListDirectories("job"), ElementsAre("a", "b"));
  EXPECT_THAT(*store_->ListDirectories("none"), IsEmpty());
}

TEST_F(StoreConformanceTest, UriOf_IsWhereAnotherStoreFindsIt) {
  ASSERT_TRUE(store_->Write("a/b", "found").ok());
  EXPECT_EQ(*(*ObjectStore::Open(store_->UriOf("a")))->Read("b"), "found");
  EXPECT_THAT(store_->UriOf("a"), EndsWith("/a"));
}

}  // namespace
}  // namespace temper
