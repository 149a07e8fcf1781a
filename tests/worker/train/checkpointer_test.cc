// SPDX-License-Identifier: Apache-2.0
#include "worker/train/checkpointer.h"

#include <gtest/gtest.h>

#include "tests/worker/checkpoint/tiny_llama.h"
#include "tests/worker/train/silent_observer.h"
#include "worker/train/stopwatch.h"

namespace temper {
namespace {

using std::chrono::minutes;

TEST(CheckpointDueTest, BySteps_AtTheirMultiples) {
  const CheckpointOptions options = {.every_steps = 10};
  EXPECT_FALSE(CheckpointDue(options, 9, minutes(1000)));
  EXPECT_TRUE(CheckpointDue(options, 10, minutes(0)));
  EXPECT_FALSE(CheckpointDue(options, 11, minutes(1000)));
}

TEST(CheckpointDueTest, ByTime_SinceTheLast) {
  const CheckpointOptions options = {.every_minutes = 1.5};
  EXPECT_FALSE(CheckpointDue(options, 1, std::chrono::seconds(89)));
  EXPECT_TRUE(CheckpointDue(options, 1, std::chrono::seconds(90)));
}

TEST(CheckpointDueTest, Neither_Never) { EXPECT_FALSE(CheckpointDue({}, 1'000'000, minutes(1'000'000))); }

// Keeps what it is told of checkpoints.
class Listener : public SilentObserver {
 public:
  void OnLog(LogSeverity, const std::string& text) override { ADD_FAILURE() << text; }
  void OnCheckpoint(const CheckpointReport& report) override { committed.push_back(report); }

  std::vector<CheckpointReport> committed;
};

class CheckpointerTest : public testing::Test {
 protected:
  static constexpr int64_t kVocabulary = 100'000;  // so much that writing takes a while

  TemporaryDirectory directory_;
  const NativeRepository source_ = WriteTinyLlama(directory_.path() / "model", at::kFloat, kVocabulary);
  const std::unique_ptr<Transformer> model_ = *LoadTransformer(source_, {});
  AdamW optimizer_{model_->parameters(), {}};
  const std::unique_ptr<ObjectStore> store_ = *ObjectStore::Open((directory_.path() / "out").string());
  const TrainJob job_ = {.job_id = "job", .checkpoint_options = {.every_steps = 1}};
  Listener listener_;
  const Gang alone_;
  Checkpointer checkpointer_{*store_, job_,       alone_, nullptr, {.model = &source_},
                             *model_, optimizer_, 0,      "",      listener_};
};

TEST_F(CheckpointerTest, BestWhileAnotherIsWritten_WaitsAndSaysForHowLong) {
  checkpointer_.AfterStep({.step = 1});
  Stopwatch watch;
  checkpointer_.AfterStep({.step = 2, .best_step = 2});
  const double stood_still = watch.Lap();
  checkpointer_.Finish();
  ASSERT_EQ(listener_.committed.size(), 2);
  EXPECT_EQ(listener_.committed[1].step, 2);
  EXPECT_TRUE(listener_.committed[1].best);
  EXPECT_LE(listener_.committed[1].pause_seconds, stood_still);
  EXPECT_GE(listener_.committed[1].pause_seconds, 0.5 * stood_still);
}

TEST_F(CheckpointerTest, DueWhileAnotherIsWritten_OneComesAfterIt) {
  checkpointer_.AfterStep({.step = 1});
  int64_t step = 1;
  while (listener_.committed.empty()) checkpointer_.AfterStep({.step = ++step});
  checkpointer_.Finish();
  ASSERT_EQ(listener_.committed.size(), 2);
  EXPECT_EQ(listener_.committed[0].step, 1);
  EXPECT_EQ(listener_.committed[1].step, step);
}

}  // namespace
}  // namespace temper
