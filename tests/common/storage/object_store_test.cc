// SPDX-License-Identifier: Apache-2.0
#include "common/storage/object_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/failure.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ObjectStoreTest : public ::testing::Test {
 protected:
  ObjectStoreTest() {
    std::string name = ::testing::TempDir() + "object_store_XXXXXX";
    root_ = ::mkdtemp(name.data());
    store_ = *ObjectStore::Open("file://" + root_.string());
  }
  ~ObjectStoreTest() override { std::filesystem::remove_all(root_); }

  std::vector<std::string> Paths(std::string_view directory = "") {
    const std::vector<ObjectInfo> objects = *store_->List(directory);
    std::vector<std::string> paths;
    for (const ObjectInfo& object : objects) paths.push_back(object.path);
    return paths;
  }

  std::filesystem::path root_;
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(ObjectStoreTest, Write_ThenRead_GivesTheBytes) {
  const std::string bytes("a\0b\n", 4);
  ASSERT_TRUE(store_->Write("deep/down/object", bytes).ok());
  EXPECT_EQ(*store_->Read("deep/down/object"), bytes);
  EXPECT_TRUE(*store_->Exists("deep/down/object"));
  EXPECT_FALSE(*store_->Exists("deep/down"));
  EXPECT_EQ(*store_->LocalPath("deep/down/object"), (root_ / "deep/down/object").string());
}

TEST_F(ObjectStoreTest, Write_ExistingObject_IsReplaced) {
  ASSERT_TRUE(store_->Write("object", "a long first version").ok());
  ASSERT_TRUE(store_->Write("object", "second").ok());
  EXPECT_EQ(*store_->Read("object"), "second");
}

TEST_F(ObjectStoreTest, Writer_NotClosed_LeavesNothingBehind) {
  {
    auto writer = *store_->Create("object");
    ASSERT_TRUE(writer->Write("half").ok());
    EXPECT_FALSE(*store_->Exists("object"));
    EXPECT_THAT(Paths(), IsEmpty());
  }
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

TEST_F(ObjectStoreTest, Writer_NotClosed_KeepsTheOldObject) {
  ASSERT_TRUE(store_->Write("object", "old").ok());
  {
    ASSERT_TRUE((*store_->Create("object"))->Write("new").ok());
  }
  EXPECT_EQ(*store_->Read("object"), "old");
}

TEST_F(ObjectStoreTest, ReadAt_Ranges_AreExact) {
  ASSERT_TRUE(store_->Write("object", "0123456789").ok());
  auto reader = *store_->OpenForRead("object");
  EXPECT_EQ(reader->size(), 10);
  EXPECT_EQ(*reader->ReadAt(3, 4), "3456");
  EXPECT_EQ(*reader->ReadAt(10, 0), "");
  EXPECT_EQ(reader->ReadAt(8, 3).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(reader->ReadAt(-1, 1).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_F(ObjectStoreTest, Read_LargerThanAllowed_IsRefused) {
  ASSERT_TRUE(store_->Write("object", "0123456789").ok());
  EXPECT_EQ(store_->Read("object", 9).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ObjectStoreTest, List_Directory_IsRecursiveSortedAndRelativeToTheRoot) {
  for (const char* path : {"b/2", "b/1/x", "a", "bb/3"}) ASSERT_TRUE(store_->Write(path, path).ok());
  EXPECT_THAT(Paths(), ElementsAre("a", "b/1/x", "b/2", "bb/3"));
  EXPECT_THAT(Paths("b"), ElementsAre("b/1/x", "b/2"));
  EXPECT_THAT(Paths("nothing"), IsEmpty());
  EXPECT_EQ((*store_->List("b"))[0].size, 5);
}

TEST_F(ObjectStoreTest, Move_GivesAnotherPathAndReplacesWhatIsThere) {
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

TEST_F(ObjectStoreTest, Delete_ObjectsAndDirectories_IsIdempotent) {
  for (const char* path : {"a", "b/1", "b/c/2"}) ASSERT_TRUE(store_->Write(path, path).ok());
  EXPECT_TRUE(store_->Delete("a").ok());
  EXPECT_TRUE(store_->Delete("a").ok());
  EXPECT_TRUE(store_->DeleteDirectory("b").ok());
  EXPECT_TRUE(store_->DeleteDirectory("b").ok());
  EXPECT_THAT(Paths(), IsEmpty());
}

TEST_F(ObjectStoreTest, AnyCall_PathThatLeavesTheRoot_IsRefused) {
  for (const char* path : {"", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a/./b"}) {
    EXPECT_EQ(store_->OpenForRead(path).status().code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(store_->Write(path, "x").code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_EQ(store_->DeleteDirectory(path).code(), absl::StatusCode::kInvalidArgument) << path;
  }
}

TEST_F(ObjectStoreTest, Read_Missing_IsNotFoundWithThePath) {
  const absl::Status status = store_->Read("models/missing").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(root_.string() + "/models/missing"));
}

TEST_F(ObjectStoreTest, Write_BelowAFile_IsUserInputWithThePath) {
  ASSERT_TRUE(store_->Write("file", "x").ok());
  const absl::Status status = store_->Write("file/below", "x");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_EQ(CauseOf(status), FailureCause::kUserInput);
  EXPECT_THAT(std::string(status.message()), HasSubstr("file/below"));
}

TEST_F(ObjectStoreTest, Write_DiskFull_IsResourceExhaustedWithTheSystemsText) {
  // The store writes beside the final name first: let that be a device that is always full.
  std::filesystem::create_symlink("/dev/full", root_ / "object.temper-partial");
  const absl::Status status = store_->Write("object", std::string(1 << 20, 'x'));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(CauseOf(status), FailureCause::kStorage);
  EXPECT_THAT(std::string(status.message()), HasSubstr("No space left on device"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(root_.string() + "/object"));
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

TEST_F(ObjectStoreTest, CheckWritable_GoodAndBadPlaces_LeavesNothing) {
  EXPECT_TRUE(store_->CheckWritable("new/place").ok());
  EXPECT_THAT(Paths(), IsEmpty());
  ASSERT_TRUE(store_->Write("file", "x").ok());
  EXPECT_EQ(store_->CheckWritable("file").code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ObjectStoreTest, Write_NoPermission_IsUserInput) {
  std::filesystem::permissions(root_, std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  const bool root = ::geteuid() == 0;  // may write anywhere, so become "nobody" for a moment
  ASSERT_TRUE(!root || ::seteuid(65534) == 0);
  const absl::Status status = store_->Write("object", "x");
  ASSERT_TRUE(!root || ::seteuid(0) == 0);
  std::filesystem::permissions(root_, std::filesystem::perms::owner_all);
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(CauseOf(status), FailureCause::kUserInput);
}

TEST(ObjectStoreOpen, Uris_AreTakenOrRefusedWithAReason) {
  EXPECT_EQ(*(*ObjectStore::Open("file:///a%20b/c/"))->LocalPath("d"), "/a b/c/d");
  EXPECT_EQ((*ObjectStore::Open("file:///a%20b/c/"))->UriOf("d"), "file:///a%20b/c/d");
  EXPECT_EQ(*(*ObjectStore::Open("/a%20b//"))->LocalPath("d"), "/a%20b/d");
  EXPECT_EQ(*(*ObjectStore::Open("file:///"))->LocalPath("d"), "/d");
  EXPECT_EQ(ObjectStore::Open("s3://bucket/x").status().code(), absl::StatusCode::kUnimplemented);
  for (const char* uri : {"", "relative/path", "file://host/path", "file:relative", "~/x"}) {
    EXPECT_EQ(ObjectStore::Open(uri).status().code(), absl::StatusCode::kInvalidArgument) << uri;
  }
}

}  // namespace
}  // namespace temper
