// SPDX-License-Identifier: Apache-2.0
#include "worker/node/exit_record.h"

#include <fstream>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

TEST(ExitRecordTest, WriteExitRecord_Failure_NamesTheCause) {
  const ScratchDirectory scratch;
  const fs::path& dir = scratch.path();
  ASSERT_TRUE(WriteExitRecord(dir, {NodeExit::kRankFailed, v1::FAILURE_CAUSE_RANK_LOST, "odd \xFF"}).ok());
  const auto json = nlohmann::json::parse(std::ifstream(dir / "exit.json"));
  EXPECT_EQ(json["exit_status"], 1);
  EXPECT_EQ(json["cause"], "RANK_LOST");
  EXPECT_EQ(json["message"], "odd \xEF\xBF\xBD");
  EXPECT_FALSE(fs::exists(dir / "exit.json.tmp"));
}

TEST(ExitRecordTest, WriteExitRecord_Success_HasNoCause) {
  const ScratchDirectory scratch;
  const fs::path& dir = scratch.path();
  ASSERT_TRUE(WriteExitRecord(dir, {}).ok());
  const auto json = nlohmann::json::parse(std::ifstream(dir / "exit.json"));
  EXPECT_EQ(json["exit_status"], 0);
  EXPECT_EQ(json["cause"], "");
}

TEST(ExitRecordTest, WriteExitRecord_NoSuchDirectory_SaysWhichFile) {
  const absl::Status status = WriteExitRecord("/nonexistent", {});
  EXPECT_NE(std::string(status.message()).find("/nonexistent/exit.json"), std::string::npos);
}

}  // namespace
}  // namespace temper
