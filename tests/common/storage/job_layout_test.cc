// SPDX-License-Identifier: Apache-2.0
#include "common/storage/job_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/storage/publication.h"
#include "tests/common/storage/test_store.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class JobLayoutTest : public ::testing::Test {
 protected:
  void Publish(const std::string& directory, bool commit = true) {
    auto publication = *Publication::Begin(*store_, directory, "job", 1);
    ASSERT_TRUE(publication->Write("file", "x").ok());
    if (commit) {
      ASSERT_TRUE(publication->Commit().ok());
    } else {
      // Its process was killed: its destructor never runs. Kept in sight, so that leak checkers see it is meant.
      static auto* const killed = new std::vector<Publication*>;
      killed->push_back(publication.release());
    }
  }

  std::vector<std::string> Paths() {
    std::vector<std::string> paths;
    const auto objects = store_->List("");
    for (const ObjectInfo& object : *objects) paths.push_back(object.path);
    return paths;
  }

  const TestStore store_;
};

TEST_F(JobLayoutTest, CheckpointNames_GoThereAndBack) {
  EXPECT_EQ(CheckpointDirectory("job", {200, 3}), "job/checkpoints/step-00000200-e0003");
  EXPECT_EQ(ParseCheckpointName("step-00000200-e0003"), (CheckpointKey{200, 3}));
  EXPECT_EQ(ParseCheckpointName("step-12345678901-e12345"), (CheckpointKey{12345678901, 12345}));
  for (const char* other :
       {"", "step-", "step-1", "step--e1", "step-1-e", "step-1x-e1", "step-1-e-1", "export-e0001"}) {
    EXPECT_EQ(ParseCheckpointName(other), std::nullopt) << other;
  }
}

TEST_F(JobLayoutTest, ListCommittedCheckpoints_NewestFirst_WithoutHalfWrittenAndForeignOnes) {
  Publish(CheckpointDirectory("job", {9, 2}));
  Publish(CheckpointDirectory("job", {100, 1}));
  Publish(CheckpointDirectory("job", {100, 2}));
  Publish(CheckpointDirectory("job", {200, 2}), /*commit=*/false);
  Publish("job/checkpoints/mine");
  Publish(CheckpointDirectory("other", {300, 1}));
  EXPECT_THAT(*ListCommittedCheckpoints(*store_, "job"),
              ElementsAre(CheckpointKey{100, 2}, CheckpointKey{100, 1}, CheckpointKey{9, 2}));
  EXPECT_THAT(*ListCommittedCheckpoints(*store_, "none"), IsEmpty());
}

TEST_F(JobLayoutTest, RemoveUncommitted_OfDeadGangsOnly) {
  Publish(CheckpointDirectory("job", {1, 1}));
  Publish(CheckpointDirectory("job", {2, 1}), /*commit=*/false);
  Publish(CheckpointDirectory("job", {3, 3}), /*commit=*/false);
  Publish(ExportDirectory("job", 2), /*commit=*/false);
  ASSERT_TRUE(store_->Write(WriteProbe("job", 2), "x").ok());
  ASSERT_TRUE(store_->Write("job/notes.txt", "a user's own").ok());
  ASSERT_TRUE(RemoveUncommitted(*store_, "job", 2).ok());
  EXPECT_THAT(Paths(), ElementsAre("job/checkpoints/step-00000001-e0001/file",
                                   "job/checkpoints/step-00000001-e0001/manifest.json",
                                   "job/checkpoints/step-00000003-e0003/file", "job/notes.txt"));
}

TEST_F(JobLayoutTest, RemoveOtherExports_KeepsOne) {
  Publish(ExportDirectory("job", 1));
  Publish(ExportDirectory("job", 2));
  Publish(ExportDirectory("job", 3), /*commit=*/false);
  ASSERT_TRUE(RemoveOtherExports(*store_, "job", 2).ok());
  EXPECT_THAT(*store_->ListDirectories("job"), ElementsAre("export-e0002"));
}

}  // namespace
}  // namespace temper
