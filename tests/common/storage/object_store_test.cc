// SPDX-License-Identifier: Apache-2.0
#include "common/storage/object_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/failure.h"
#include "common/storage/publication.h"

namespace temper {
namespace {

using ::testing::HasSubstr;

// What is so on this machine only; what is so everywhere is in store_conformance_test.cc.
class LocalStoreTest : public ::testing::Test {
 protected:
  LocalStoreTest() {
    std::string name = ::testing::TempDir() + "object_store_XXXXXX";
    root_ = ::mkdtemp(name.data());
    store_ = *ObjectStore::Open("file://" + root_.string());
  }
  ~LocalStoreTest() override { std::filesystem::remove_all(root_); }

  std::filesystem::path root_;
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(LocalStoreTest, LocalPath_IsWhereAnObjectIs) {
  ASSERT_TRUE(store_->Write("deep/down/object", "x").ok());
  EXPECT_EQ(*store_->LocalPath("deep/down/object"), (root_ / "deep/down/object").string());
}

TEST_F(LocalStoreTest, Writer_NotClosed_LeavesNoPartialFile) {
  {
    ASSERT_TRUE((*store_->Create("object"))->Write("half").ok());
  }
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

TEST_F(LocalStoreTest, Write_BelowAFile_IsUserInputWithThePath) {
  ASSERT_TRUE(store_->Write("file", "x").ok());
  const absl::Status status = store_->Write("file/below", "x");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_EQ(CauseOf(status), FailureCause::kUserInput);
  EXPECT_THAT(std::string(status.message()), HasSubstr("file/below"));
}

TEST_F(LocalStoreTest, Write_DiskFull_IsResourceExhaustedWithTheSystemsText) {
  // The store writes beside the final name first: let that be a device that is always full.
  std::filesystem::create_symlink("/dev/full", root_ / "object.temper-partial");
  const absl::Status status = store_->Write("object", std::string(1 << 20, 'x'));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(CauseOf(status), FailureCause::kStorage);
  EXPECT_THAT(std::string(status.message()), HasSubstr("No space left on device"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(root_.string() + "/object"));
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

TEST_F(LocalStoreTest, Commit_DiskFull_LeavesNothing) {
  auto publication = *Publication::Begin(*store_, "job/export-e0003", "job", 3);
  ASSERT_TRUE(publication->Write("done", "x").ok());
  std::filesystem::create_symlink("/dev/full", root_ / "job/export-e0003/manifest.json.temper-partial");
  const absl::Status status = publication->Commit();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(CauseOf(status), FailureCause::kStorage);
  publication.reset();
  EXPECT_FALSE(std::filesystem::exists(root_ / "job/export-e0003"));
}

TEST_F(LocalStoreTest, CheckWritable_File_IsRefused) {
  ASSERT_TRUE(store_->Write("file", "x").ok());
  EXPECT_EQ(store_->CheckWritable("file").code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(LocalStoreTest, Write_NoPermission_IsUserInput) {
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
  EXPECT_EQ(ObjectStore::Open("ftp://host/x").status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ((*ObjectStore::Open("s3://bucket/a/?endpoint=http://127.0.0.1:1"))->UriOf("d"),
            "s3://bucket/a/d?endpoint=http://127.0.0.1:1");
  for (const char* uri : {"",
                          "relative/path",
                          "file://host/path",
                          "file:relative",
                          "~/x",
                          "s3://",
                          "s3:///path",
                          "s3://b/../c",
                          "s3://b//c",
                          "s3://b/c?regoin=x",
                          "s3://b?endpoint=ftp://host",
                          "s3://key:secret@bucket/x",
                          "gs://",
                          "gs://key@bucket",
                          "gs://b?region=x",
                          "abfs://container",
                          "abfs://container@account.dfs.example.org/x",
                          "abfs://container:key@account/x",
                          "abfs://c@account.evil.example/x",
                          "abfs://c@account.dfs.core.windows.net.evil.example/x",
                          "abfs://c@evil.example#/x",
                          "abfs://c@evil%2Eexample#/x",
                          "abfs://c@evil#.dfs.core.windows.net/x",
                          "abfs://c@account@evil/x",
                          "abfs://c@evil\\/x",
                          "abfs://c@Account/x",
                          "abfs://c%2F..@account/x",
                          "abfs://Container@account/x",
                          "abfs://c@account/x?sig=secret",
                          "hf://name",
                          "hf://org/name@"}) {
    EXPECT_EQ(ObjectStore::Open(uri).status().code(), absl::StatusCode::kInvalidArgument) << uri;
  }
}

}  // namespace
}  // namespace temper
