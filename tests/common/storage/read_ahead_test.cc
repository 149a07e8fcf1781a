// SPDX-License-Identifier: Apache-2.0
#include "common/storage/read_ahead.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

constexpr int64_t kBlock = 10;

class ReadAheadTest : public ::testing::Test {
 protected:
  ReadAheadTest() {
    for (int i = 0; i < 95; ++i) content_ += static_cast<char>(' ' + i);
    store_ = *ObjectStore::Open(scratch_.path().string());
    EXPECT_TRUE(store_->Write("object", content_).ok());
    reader_ = *store_->OpenForRead("object");
    ahead_ = std::make_unique<ReadAhead>(*reader_, kBlock);
  }

  void ExpectRead(int64_t offset, int64_t length) {
    const auto bytes = ahead_->Read(offset, length);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_EQ(*bytes, content_.substr(offset, length)) << length << " at " << offset;
  }

  ScratchDirectory scratch_;
  std::string content_;
  std::unique_ptr<ObjectStore> store_;
  std::unique_ptr<ObjectReader> reader_;
  std::unique_ptr<ReadAhead> ahead_;
};

TEST_F(ReadAheadTest, RisingOffsets_AcrossBlocksAndToTheEnd) {
  ExpectRead(0, 3);
  ExpectRead(3, 7);
  ExpectRead(10, 35);
  ExpectRead(45, 0);
  ExpectRead(45, 50);
}

TEST_F(ReadAheadTest, Gaps_AreJumped) {
  ExpectRead(2, 1);
  ExpectRead(8, 1);
  ExpectRead(57, 11);
  ExpectRead(94, 1);
}

TEST_F(ReadAheadTest, WhatLiesBefore_IsReadAgain) {
  ExpectRead(40, 20);
  ExpectRead(5, 20);
  ExpectRead(60, 35);
  ExpectRead(0, 95);
}

TEST_F(ReadAheadTest, OutOfRange_IsAsTheReaderSaysIt) {
  const std::vector<std::pair<int64_t, int64_t>> ranges = {{-1, 1}, {0, 96}, {96, 0}, {50, -1}};
  for (const auto& [offset, length] : ranges) {
    EXPECT_EQ(ahead_->Read(offset, length).status(), reader_->ReadAt(offset, length).status());
    EXPECT_EQ(ahead_->Read(offset, length).status().code(), absl::StatusCode::kOutOfRange);
  }
}

TEST_F(ReadAheadTest, ObjectThatBecomesShorter_IsDataLossInTheReadThatNeedsIt) {
  ExpectRead(0, 1);
  ExpectRead(10, 1);  // the block after it may have come already
  std::filesystem::resize_file(*store_->LocalPath("object"), 30);
  EXPECT_EQ(ahead_->Read(50, 10).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace temper
