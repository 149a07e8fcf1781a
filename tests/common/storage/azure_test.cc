// SPDX-License-Identifier: Apache-2.0
// What the emulator of Azure's storage does not do: accounts with a hierarchical namespace, which rename.
#include "common/storage/azure.h"

#include <arrow/filesystem/localfs.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

constexpr std::chrono::seconds kDeadline{20};

// An account on a local disk, whose renames go as a test says.
class HierarchicalAccount final : public arrow::fs::LocalFileSystem {
 public:
  std::function<arrow::Status(const std::string& from, const std::string& to)> rename;
  int renames = 0;

  arrow::Status Move(const std::string& from, const std::string& to) override {
    ++renames;
    return rename ? rename(from, to) : LocalFileSystem::Move(from, to);
  }
  // A directory is there as soon as something is in it.
  arrow::Result<std::shared_ptr<arrow::io::OutputStream>> OpenOutputStream(
      const std::string& path, const std::shared_ptr<const arrow::KeyValueMetadata>& metadata) override {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    return LocalFileSystem::OpenOutputStream(path, metadata);
  }
  arrow::Status MoveWell(const std::string& from, const std::string& to) { return LocalFileSystem::Move(from, to); }
};

class AzureRenameTest : public ::testing::Test {
 protected:
  arrow::Status Write(const std::string& content, std::chrono::milliseconds deadline = kDeadline) {
    const auto files = WithAzureRetries(account_, deadline);
    auto stream = files->OpenOutputStream(Path(), nullptr);
    if (!stream.ok()) return stream.status();
    if (auto status = (*stream)->Write(content.data(), static_cast<int64_t>(content.size())); !status.ok())
      return status;
    return (*stream)->Close();
  }

  std::string Path() const { return (scratch_.path() / "file").string(); }
  std::string Content() const {
    std::ifstream in(Path());
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // The file alone, without what it grew in.
  bool IsAlone() const {
    return std::distance(std::filesystem::directory_iterator(scratch_.path()), std::filesystem::directory_iterator()) ==
           1;
  }

  const ScratchDirectory scratch_;
  const std::shared_ptr<HierarchicalAccount> account_ = std::make_shared<HierarchicalAccount>();
};

TEST_F(AzureRenameTest, RenameFailsForAMoment_IsRepeated) {
  account_->rename = [&](const std::string& from, const std::string& to) {
    if (account_->renames < 3) return arrow::Status::IOError("Azure Error: [ServerBusy] come again");
    return account_->MoveWell(from, to);
  };
  ASSERT_TRUE(Write("new").ok());
  EXPECT_EQ(account_->renames, 3);
  EXPECT_EQ(Content(), "new");
  EXPECT_TRUE(IsAlone());
}

TEST_F(AzureRenameTest, RenameThatSeemedToFailWasDone_IsWell) {
  account_->rename = [&](const std::string& from, const std::string& to) {
    EXPECT_EQ(account_->MoveWell(from, to).ok(), account_->renames == 1);
    if (account_->renames == 1) return arrow::Status::IOError("Azure Error: [OperationTimedOut] who knows");
    return arrow::Status::IOError("Azure Error: [SourcePathNotFound] gone");
  };
  ASSERT_TRUE(Write("old").ok());
  account_->renames = 0;
  const arrow::Status status = Write("new");
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(account_->renames, 2);
  EXPECT_EQ(Content(), "new");
  EXPECT_TRUE(IsAlone());
}

TEST_F(AzureRenameTest, WhatWasWrittenIsGone_IsAnErrorAndTheOldFileStays) {
  ASSERT_TRUE(Write("old").ok());
  account_->rename = [&](const std::string& from, const std::string&) {
    return std::filesystem::exists(from) ? arrow::Status::IOError("Azure Error: [PathNotFound] a parent is gone")
                                         : arrow::Status::OK();
  };
  const arrow::Status status = Write("new");
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(account_->renames, 2);
  EXPECT_EQ(Content(), "old");
  EXPECT_TRUE(IsAlone());
}

TEST_F(AzureRenameTest, RenameFailsForLong_LeavesNothing) {
  account_->rename = [](const std::string&, const std::string&) {
    return arrow::Status::IOError("Azure Error: [ServerBusy] come again");
  };
  EXPECT_FALSE(Write("new", std::chrono::milliseconds(1)).ok());
  EXPECT_FALSE(std::filesystem::exists(Path()));
  EXPECT_TRUE(std::filesystem::is_empty(scratch_.path()));
}

TEST_F(AzureRenameTest, AccountRenamesNothing_FileIsCopied) {
  account_->rename = [](const std::string&, const std::string&) { return arrow::Status::NotImplemented("flat"); };
  ASSERT_TRUE(Write("new").ok());
  EXPECT_EQ(account_->renames, 1);
  EXPECT_EQ(Content(), "new");
  EXPECT_TRUE(IsAlone());
}

}  // namespace
}  // namespace temper
