// SPDX-License-Identifier: Apache-2.0
#include "client/downloader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/digest.h"
#include "tests/client/fake_training_server.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteFile(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

class DownloaderTest : public ::testing::Test {
 protected:
  DownloaderTest()
      : directory_(std::filesystem::path(::testing::TempDir()) /
                   absl::StrCat("download-", ::getpid(), "-",
                                ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(directory_);
    for (int i = 0; i < 5000; ++i) weights_.push_back(static_cast<char>(i * 7 + i / 256));
    AddFile("config.json", "{}");
    AddFile("nested/weights.bin", weights_);
    AddFile("empty.txt", "");
  }
  ~DownloaderTest() override { std::filesystem::remove_all(directory_); }

  void AddFile(const std::string& path, const std::string& content) {
    server_.files[path] = content;
    v1::Artifact artifact;
    artifact.set_path(path);
    artifact.set_size_bytes(static_cast<int64_t>(content.size()));
    artifact.set_sha256(Sha256Hex(content));
    server_.artifacts.push_back(artifact);
  }

  absl::StatusOr<DownloadResult> Run() {
    return DownloadArtifacts(
        server_.Client(), "a", directory_.string(),
        [&](const DownloadProgress& progress) {
          last_ = progress;
          last_.path = {};
        },
        [&](const absl::Status&) { ++waits_; });
  }

  std::vector<std::string> FilesPresent() const {
    std::vector<std::string> files;
    if (!std::filesystem::exists(directory_)) return files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory_)) {
      if (entry.is_regular_file()) files.push_back(std::filesystem::relative(entry.path(), directory_).string());
    }
    return files;
  }

  FakeTrainingServer server_;
  std::filesystem::path directory_;
  std::string weights_;
  DownloadProgress last_;
  int waits_ = 0;
};

TEST_F(DownloaderTest, EmptyDirectory_GetsEveryFile) {
  const auto result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->files, 3);
  EXPECT_EQ(result->bytes, 5002);
  EXPECT_EQ(result->received_bytes, 5002);
  EXPECT_THAT(FilesPresent(), UnorderedElementsAre("config.json", "nested/weights.bin", "empty.txt"));
  EXPECT_EQ(ReadFile(directory_ / "nested/weights.bin"), weights_);
  EXPECT_EQ(last_.done_bytes, 5002);
  EXPECT_EQ(last_.total_bytes, 5002);
}

TEST_F(DownloaderTest, EverythingThere_ReadsNothing) {
  ASSERT_TRUE(Run().ok());
  server_.offsets.clear();
  last_ = {};
  const auto again = Run();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->received_bytes, 0);
  EXPECT_THAT(server_.offsets, IsEmpty());
}

TEST_F(DownloaderTest, StreamBreaks_ResumesAtTheByte) {
  server_.artifacts = {server_.artifacts[1]};
  server_.break_after = {2000, 1500};
  const auto result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(server_.offsets, ElementsAre(0, 2000, 3500));
  EXPECT_EQ(result->received_bytes, 5000);
  EXPECT_EQ(ReadFile(directory_ / "nested/weights.bin"), weights_);
}

TEST_F(DownloaderTest, ServerCutsTheStreamOff_ResumesAtTheByte) {
  server_.artifacts = {server_.artifacts[1]};
  server_.break_after = {2000};
  server_.break_with = grpc::Status::CANCELLED;
  const auto result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(server_.offsets, ElementsAre(0, 2000));
}

TEST_F(DownloaderTest, ServerHasNoPlace_IsWaitedForAndTold) {
  server_.artifacts = {server_.artifacts[1]};
  server_.refusals = 2;
  const auto result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(server_.refusals, 0);
  EXPECT_EQ(waits_, 1);
  EXPECT_EQ(ReadFile(directory_ / "nested/weights.bin"), weights_);
}

TEST_F(DownloaderTest, PartialFileFromAnEarlierProcess_IsGoneOnWith) {
  WriteFile(directory_ / "nested/weights.bin.part", weights_.substr(0, 1234));
  server_.artifacts = {server_.artifacts[1]};
  const auto result = Run();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(server_.offsets, ElementsAre(1234));
  EXPECT_EQ(ReadFile(directory_ / "nested/weights.bin"), weights_);
  EXPECT_THAT(FilesPresent(), ElementsAre("nested/weights.bin"));
}

TEST_F(DownloaderTest, PartialFileOfOtherContent_IsBegunAnew) {
  WriteFile(directory_ / "nested/weights.bin.part", std::string(1234, 'x'));
  server_.artifacts = {server_.artifacts[1]};
  ASSERT_TRUE(Run().ok());
  EXPECT_THAT(server_.offsets, ElementsAre(1234, 0));
  EXPECT_EQ(ReadFile(directory_ / "nested/weights.bin"), weights_);
}

TEST_F(DownloaderTest, PartialFileTooLong_IsBegunAnew) {
  WriteFile(directory_ / "nested/weights.bin.part", weights_ + "more");
  server_.artifacts = {server_.artifacts[1]};
  ASSERT_TRUE(Run().ok());
  EXPECT_THAT(server_.offsets, ElementsAre(0));
  EXPECT_EQ(ReadFile(directory_ / "nested/weights.bin"), weights_);
}

TEST_F(DownloaderTest, DamagedFinalFile_IsReplaced) {
  WriteFile(directory_ / "config.json", "[]");
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(ReadFile(directory_ / "config.json"), "{}");
}

TEST_F(DownloaderTest, BytesDoNotMatchTheDigest_NothingTakesTheName) {
  server_.artifacts = {server_.artifacts[1]};
  server_.files["nested/weights.bin"][17] ^= 1;
  const auto result = Run();
  EXPECT_TRUE(absl::IsDataLoss(result.status())) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("nested/weights.bin: what is stored has the SHA-256"));
  EXPECT_FALSE(std::filesystem::exists(directory_ / "nested/weights.bin"));
}

TEST_F(DownloaderTest, ServerStaysAway_GivesUpAndKeepsWhatItHas) {
  server_.artifacts = {server_.artifacts[1]};
  server_.break_after = {3000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_TRUE(absl::IsUnavailable(Run().status()));
  EXPECT_EQ(ReadFile(directory_ / "nested/weights.bin.part"), weights_.substr(0, 3000));
}

TEST_F(DownloaderTest, PathOutsideTheDirectory_IsRefusedBeforeAnythingIsWritten) {
  for (const char* path : {"../evil", "/etc/evil", "a/../../evil", "a//b", "."}) {
    server_.artifacts[1].set_path(path);
    EXPECT_TRUE(absl::IsDataLoss(Run().status())) << path;
    EXPECT_THAT(FilesPresent(), IsEmpty());
  }
}

TEST_F(DownloaderTest, NoExportYet_SaysSo) {
  server_.artifacts.clear();
  const auto result = Run();
  EXPECT_TRUE(absl::IsFailedPrecondition(result.status())) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("jobs/a has no export yet"));
}

TEST_F(DownloaderTest, DirectoryIsAFile_SaysWhere) {
  WriteFile(directory_, "not a directory");
  const auto result = Run();
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(directory_.string()));
}

}  // namespace
}  // namespace temper
