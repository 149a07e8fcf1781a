// SPDX-License-Identifier: Apache-2.0
#include "worker/node/oom_kills.h"

#include <fstream>

#include "gtest/gtest.h"
#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

class OomKillsTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(root_ / "pod/worker"); }
  void Write(const fs::path& path, const std::string& text) { std::ofstream(root_ / path) << text; }

  const ScratchDirectory scratch_;
  const fs::path root_ = scratch_.path();
};

TEST_F(OomKillsTest, OomKills_CgroupWithEvents_CountsThem) {
  Write("cgroup", "1:name=systemd:/old\n0::/pod/worker\n");
  Write("pod/worker/memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n");
  EXPECT_EQ(OomKills(root_ / "cgroup", root_), 2);
}

TEST_F(OomKillsTest, OomKills_RootCgroup_HasNoEvents) {
  Write("cgroup", "0::/\n");
  EXPECT_EQ(OomKills(root_ / "cgroup", root_), std::nullopt);
}

TEST_F(OomKillsTest, OomKills_OnlyVersionOne_CannotTell) {
  Write("cgroup", "4:memory:/docker/abc\n");
  EXPECT_EQ(OomKills(root_ / "cgroup", root_), std::nullopt);
}

TEST_F(OomKillsTest, OomKills_NoSuchFile_CannotTell) { EXPECT_EQ(OomKills(root_ / "none", root_), std::nullopt); }

}  // namespace
}  // namespace temper
