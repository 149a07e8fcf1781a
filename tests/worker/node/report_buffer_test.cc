// SPDX-License-Identifier: Apache-2.0
#include "worker/node/report_buffer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace temper {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

v1::RankReport Step(int64_t step, int32_t rank = 0) {
  v1::RankReport report;
  report.set_rank(rank);
  report.mutable_step()->set_step(step);
  return report;
}

v1::RankReport Log(size_t bytes, int32_t rank = 0) {
  v1::RankReport report;
  report.set_rank(rank);
  report.mutable_log()->set_text(std::string(bytes, 'x'));
  return report;
}

v1::RankReport End() {
  v1::RankReport report;
  report.mutable_end()->set_message("done");
  return report;
}

std::vector<int64_t> Sequences(ReportBuffer& buffer) {
  std::vector<int64_t> sequences;
  while (auto report = buffer.Next()) sequences.push_back(report->sequence());
  return sequences;
}

TEST(ReportBufferTest, Next_TwoRanks_NumbersEachFromOne) {
  const FakeClock clock;
  ReportBuffer buffer(1 << 20, 100, clock);
  for (const auto& report : {Step(1, 0), Step(1, 1), Step(2, 0), Step(2, 1)}) buffer.Add(report);
  EXPECT_THAT(Sequences(buffer), ElementsAre(1, 1, 2, 2));
  EXPECT_FALSE(buffer.HasNext());
  EXPECT_FALSE(buffer.empty());
}

TEST(ReportBufferTest, Next_Age_IsTheTimeSinceItCameWhateverTheDateIs) {
  FakeClock clock;
  ReportBuffer buffer(1 << 20, 100, clock);
  buffer.Add(Step(1));
  clock.SetWall(clock.Wall() - std::chrono::hours(5));
  clock.Advance(std::chrono::milliseconds(2500));
  buffer.Add(Step(2));
  const auto first = buffer.Next(), second = buffer.Next();
  EXPECT_EQ(first->age().seconds(), 2);
  EXPECT_EQ(first->age().nanos(), 500'000'000);
  EXPECT_EQ(second->age().seconds(), 0);
  clock.Advance(std::chrono::seconds(60));
  buffer.Rewind();
  EXPECT_EQ(buffer.Next()->age().seconds(), 62);
}

TEST(ReportBufferTest, Acknowledge_OneRank_LeavesTheOther) {
  const FakeClock clock;
  ReportBuffer buffer(1 << 20, 100, clock);
  for (const auto& report : {Step(1, 0), Step(1, 1), Step(2, 0)}) buffer.Add(report);
  Sequences(buffer);
  EXPECT_EQ(buffer.Acknowledge(0, 2), 2);
  EXPECT_FALSE(buffer.empty());
  EXPECT_EQ(buffer.Acknowledge(1, 1), 1);
  EXPECT_TRUE(buffer.empty());
}

TEST(ReportBufferTest, Acknowledge_NoStepAmongThem_SaysSo) {
  const FakeClock clock;
  ReportBuffer buffer(1 << 20, 100, clock);
  for (const auto& report : {Step(7), Log(10)}) buffer.Add(report);
  Sequences(buffer);
  EXPECT_EQ(buffer.Acknowledge(0, 1), 7);
  EXPECT_EQ(buffer.Acknowledge(0, 1), 0);
  EXPECT_EQ(buffer.Acknowledge(0, 2), 0);
}

TEST(ReportBufferTest, Rewind_AfterSomeAcknowledged_RepeatsTheRestWithItsNumbers) {
  const FakeClock clock;
  ReportBuffer buffer(1 << 20, 100, clock);
  for (int64_t step = 1; step <= 4; ++step) buffer.Add(Step(step));
  for (int i = 0; i < 3; ++i) buffer.Next();
  buffer.Acknowledge(0, 1);
  buffer.Rewind();
  EXPECT_THAT(Sequences(buffer), ElementsAre(2, 3, 4));
}

TEST(ReportBufferTest, Acknowledge_WhileRepeating_DoesNotSkip) {
  const FakeClock clock;
  ReportBuffer buffer(1 << 20, 100, clock);
  for (int64_t step = 1; step <= 4; ++step) buffer.Add(Step(step));
  Sequences(buffer);
  buffer.Rewind();
  EXPECT_EQ(buffer.Next()->sequence(), 1);
  EXPECT_EQ(buffer.Next()->sequence(), 2);
  buffer.Acknowledge(0, 1);
  EXPECT_THAT(Sequences(buffer), ElementsAre(3, 4));
}

TEST(ReportBufferTest, Next_WindowFull_WaitsForAcknowledgement) {
  const FakeClock clock;
  ReportBuffer buffer(1 << 20, 2, clock);
  for (int64_t step = 1; step <= 3; ++step) buffer.Add(Step(step));
  EXPECT_THAT(Sequences(buffer), ElementsAre(1, 2));
  EXPECT_FALSE(buffer.HasNext());
  buffer.Acknowledge(0, 1);
  EXPECT_THAT(Sequences(buffer), ElementsAre(3));
}

TEST(ReportBufferTest, Add_OverTheBound_DropsOldestLogsLeavesNoGapAndTellsHowMany) {
  const FakeClock clock;
  ReportBuffer buffer(/*max_bytes=*/1000, /*window=*/100, clock);
  for (int i = 0; i < 30; ++i) {
    buffer.Add(Log(100));
    buffer.Add(Step(i + 1));
  }
  std::vector<int64_t> steps;
  std::vector<int64_t> sequences;
  int64_t logs = 0;
  const auto notice = buffer.Next();
  EXPECT_EQ(notice->rank(), -1);
  while (auto report = buffer.Next()) {
    sequences.push_back(report->sequence());
    if (report->has_step()) steps.push_back(report->step().step());
    if (report->has_log()) ++logs;
  }
  EXPECT_GT(logs, 0);
  EXPECT_EQ(steps.size(), 30);  // steps are small: no reason to drop one
  for (size_t i = 0; i < sequences.size(); ++i) EXPECT_EQ(sequences[i], static_cast<int64_t>(i + 1));
  EXPECT_THAT(notice->log().text(), HasSubstr(std::to_string(30 - logs) + " log lines"));
}

TEST(ReportBufferTest, Add_OverTheBoundWithoutLogs_DropsStepsButNeverAnEnd) {
  const FakeClock clock;
  ReportBuffer buffer(/*max_bytes=*/100, /*window=*/1000, clock);
  buffer.Add(End());
  for (int i = 0; i < 200; ++i) buffer.Add(Step(i + 1));
  buffer.Add(End());
  int ends = 0;
  int64_t last_step = 0;
  while (auto report = buffer.Next()) {
    ends += report->has_end();
    if (report->has_step()) last_step = report->step().step();
  }
  EXPECT_EQ(ends, 2);
  EXPECT_EQ(last_step, 200);
}

TEST(ReportBufferTest, Add_NothingButALogThatIsTooLong_StillTells) {
  const FakeClock clock;
  ReportBuffer buffer(/*max_bytes=*/100, /*window=*/10, clock);
  buffer.Add(Log(1000));
  EXPECT_FALSE(buffer.empty());
  ASSERT_TRUE(buffer.HasNext());
  EXPECT_THAT(buffer.Next()->log().text(), HasSubstr("1 log line"));
  EXPECT_FALSE(buffer.HasNext());
}

}  // namespace
}  // namespace temper
