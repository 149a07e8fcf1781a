// SPDX-License-Identifier: Apache-2.0
#include "common/storage/publication.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/failure.h"
#include "tests/common/storage/test_store.h"

namespace temper {
namespace {

using ::testing::HasSubstr;

constexpr char kSha256OfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";  // FIPS 180-4

class PublicationTest : public ::testing::Test {
 protected:
  std::unique_ptr<Publication> Begin() { return *Publication::Begin(*store_, "job/export-e0003", "job", 3); }

  bool IsEmpty(std::string_view directory) { return store_->List(directory)->empty(); }

  const TestStore store_;
};

TEST_F(PublicationTest, Commit_FilesInPieces_ManifestListsSizesAndDigests) {
  auto publication = Begin();
  ASSERT_TRUE(publication->Write("z.txt", "").ok());
  auto file = *publication->Create("sub/abc.txt");
  ASSERT_TRUE(file->Write("a").ok());
  ASSERT_TRUE(file->Write("bc").ok());
  ASSERT_TRUE(file->Close().ok());
  EXPECT_EQ(ReadManifest(*store_, "job/export-e0003").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(publication->Commit().ok());
  publication.reset();

  const Manifest manifest = *ReadManifest(store_->UriOf("job/export-e0003"));
  EXPECT_EQ(manifest.job, "job");
  EXPECT_EQ(manifest.epoch, 3);
  ASSERT_EQ(manifest.files.size(), 2);
  EXPECT_EQ(manifest.files[0].path, "sub/abc.txt");
  EXPECT_EQ(manifest.files[0].size, 3);
  EXPECT_EQ(manifest.files[0].sha256, kSha256OfAbc);
  EXPECT_EQ(manifest.files[1].path, "z.txt");
  EXPECT_EQ(manifest.total_size(), 3);
  EXPECT_EQ(*store_->Read("job/export-e0003/sub/abc.txt"), "abc");
}

TEST_F(PublicationTest, Destructor_WithoutCommit_RemovesEverything) {
  auto publication = Begin();
  ASSERT_TRUE(publication->Write("done", "x").ok());
  auto file = *publication->Create("open");
  ASSERT_TRUE(file->Write("x").ok());
  file.reset();
  publication.reset();
  EXPECT_TRUE(IsEmpty("job/export-e0003"));
}

TEST_F(PublicationTest, Commit_WithAnOpenFile_IsRefused) {
  auto publication = Begin();
  {
    auto file = *publication->Create("half.bin");
  }
  const absl::Status status = publication->Commit();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("half.bin"));
}

TEST_F(PublicationTest, Begin_SomethingIsThere_IsRefusedAndLeftAlone) {
  ASSERT_TRUE(store_->Write("job/export-e0003/precious", "x").ok());
  const absl::Status status = Publication::Begin(*store_, "job/export-e0003", "job", 3).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(CauseOf(status), FailureCause::kUserInput);
  EXPECT_EQ(*store_->Read("job/export-e0003/precious"), "x");
}

TEST_F(PublicationTest, Create_SameFileTwiceOrTheManifest_IsRefused) {
  auto publication = Begin();
  ASSERT_TRUE(publication->Write("a", "x").ok());
  EXPECT_EQ(publication->Write("a", "y").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(publication->Write(kManifestName, "y").code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(PublicationTest, Join_FilesAreTheFirstOnesToCommitAndToRemove) {
  auto publication = Begin();
  ASSERT_TRUE(publication->Write("b.txt", "abc").ok());
  {
    const auto part = Publication::Join(*store_, "job/export-e0003", "job", 3);
    ASSERT_TRUE(part->Write("a.txt", "abc").ok());
    EXPECT_EQ(part->Commit().code(), absl::StatusCode::kFailedPrecondition);
    publication->Include(part->manifest().files);
  }
  EXPECT_TRUE(*store_->Exists("job/export-e0003/a.txt"));
  ASSERT_TRUE(publication->Commit().ok());
  const Manifest manifest = *ReadManifest(*store_, "job/export-e0003");
  ASSERT_EQ(manifest.files.size(), 2);
  EXPECT_EQ(manifest.files[0].path, "a.txt");
  EXPECT_EQ(manifest.files[0].sha256, kSha256OfAbc);
}

TEST_F(PublicationTest, Join_WithoutACommit_RemovesNothingButTheFirstDoes) {
  auto publication = Begin();
  ASSERT_TRUE(Publication::Join(*store_, "job/export-e0003", "job", 3)->Write("a.txt", "").ok());
  EXPECT_TRUE(*store_->Exists("job/export-e0003/a.txt"));
  publication.reset();
  EXPECT_TRUE(IsEmpty("job/export-e0003"));
}

TEST_F(PublicationTest, ReadManifest_Malformed_IsDataLossWithThePath) {
  const char* bad[] = {
      "",
      "[]",
      R"({"format_version": 2, "job": "j", "epoch": 1, "files": []})",
      R"({"format_version": 1, "epoch": 1, "files": []})",
      R"({"format_version": 1, "job": "j", "epoch": 1, "files": [{"path": "a", "size": "1", "sha256": ""}]})",
      R"({"format_version": 1, "job": "j", "epoch": 1, "files": [{"path": "a", "size": -1, "sha256": ""}]})",
      R"({"format_version": 1, "job": "j", "epoch": 1, "files": [{"path": "a", "size": 1e300, "sha256": ""}]})",
      R"({"format_version": 1, "job": "j", "epoch": 1, "files": [{"path": "a", "size": 9223372036854775807, "sha256": ""},
                                                               {"path": "b", "size": 1, "sha256": ""}]})",
  };
  for (const char* text : bad) {
    ASSERT_TRUE(store_->Write("bad/manifest.json", text).ok());
    const absl::Status status = ReadManifest(*store_, "bad").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("bad/manifest.json"));
  }
}

TEST_F(PublicationTest, VerifyFiles_MissingShorterOrChanged_NamesTheFile) {
  const auto damage = [this](const std::string& text) {
    store_->DeleteDirectory("job/export-e0003").IgnoreError();
    auto publication = Begin();
    EXPECT_TRUE(publication->Write("a.bin", std::string(9 << 20, 'a')).ok());
    EXPECT_TRUE(publication->Commit().ok());
    const Manifest manifest = publication->manifest();
    EXPECT_TRUE(VerifyFiles(*store_, "job/export-e0003", manifest).ok());
    EXPECT_TRUE(store_->Delete("job/export-e0003/a.bin").ok());
    if (!text.empty()) {
      EXPECT_TRUE(store_->Write("job/export-e0003/a.bin", text).ok());
    }
    return VerifyFiles(*store_, "job/export-e0003", manifest);
  };
  const absl::Status missing = damage("");
  EXPECT_EQ(missing.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CauseOf(missing), FailureCause::kStorage);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("job/export-e0003/a.bin is missing"));
  EXPECT_THAT(std::string(damage("aaa").message()), HasSubstr("a.bin has 3 bytes instead of 9437184"));
  std::string changed(9 << 20, 'a');
  changed.back() = 'b';
  EXPECT_THAT(std::string(damage(changed).message()), HasSubstr("a.bin is damaged"));
}

TEST_F(PublicationTest, Unpublish_RemovesAllAndIsSafeToRepeat) {
  auto publication = Begin();
  ASSERT_TRUE(publication->Write("a", "x").ok());
  ASSERT_TRUE(publication->Commit().ok());
  EXPECT_TRUE(Unpublish(*store_, "job/export-e0003").ok());
  EXPECT_TRUE(Unpublish(*store_, "job/export-e0003").ok());
  EXPECT_TRUE(store_->List("job")->empty());
}

TEST_F(PublicationTest, Folder_WritesBelowItsPath) {
  auto publication = Begin();
  PublishedFolder folder(*publication, "weights");
  ASSERT_TRUE(folder.Write("config.json", "{}").ok());
  ASSERT_TRUE((*folder.Create("a/b"))->Close().ok());
  ASSERT_EQ(publication->manifest().files.size(), 2);
  EXPECT_EQ(publication->manifest().files[0].path, "weights/a/b");
  EXPECT_EQ(publication->manifest().files[1].path, "weights/config.json");
}

}  // namespace
}  // namespace temper
