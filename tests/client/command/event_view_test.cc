// SPDX-License-Identifier: Apache-2.0
#include "client/command/event_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_split.h"

namespace temper::command {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

v1::JobEvent Step(int64_t step) {
  v1::JobEvent event;
  event.mutable_step()->set_step(step);
  event.mutable_step()->set_total_steps(10);
  event.mutable_step()->set_loss(1.0 / static_cast<double>(step));
  event.mutable_step()->set_tokens(1000);
  event.mutable_step()->set_seconds(2);
  return event;
}

v1::JobEvent State(v1::JobState state) {
  v1::JobEvent event;
  event.mutable_state()->set_state(state);
  return event;
}

std::string Shown(const Terminal& terminal, v1::JobState end) {
  testing::internal::CaptureStdout();
  {
    EventView view(terminal);
    view.Show(State(v1::JOB_STATE_RUNNING));
    for (int64_t step = 1; step <= 5; ++step) view.Show(Step(step));
    view.Show(State(end));
  }
  return testing::internal::GetCapturedStdout();
}

TEST(EventView, Terminal_KeepsTheLastPictureOfTheTraining) {
  for (const v1::JobState end : {v1::JOB_STATE_FAILED, v1::JOB_STATE_PAUSED}) {
    const std::string text = Shown({.interactive = true, .color = false}, end);
    // All steps are in it, though they came faster than it is redrawn; and it has room for two charts on 80 × 24.
    EXPECT_THAT(text, AllOf(HasSubstr("Loss"), HasSubstr("Gradient norm"), Not(HasSubstr("Learning rate"))));
    const std::vector<std::string> lines = absl::StrSplit(text.substr(text.rfind("Loss")), '\n');
    ASSERT_EQ(lines.size(), 14) << text;  // title, eight of the curves, two of the axis, progress, state
    EXPECT_THAT(lines[1], HasSubstr("1 │"));
    EXPECT_THAT(lines[8], HasSubstr("0.2 │"));
    EXPECT_THAT(lines[11], HasSubstr("5/10  loss 0.2000"));
    EXPECT_THAT(lines[12], HasSubstr(end == v1::JOB_STATE_FAILED ? "FAILED" : "PAUSED"));
  }
}

TEST(EventView, NoTerminal_HasALineForEachStep) {
  const std::string text = Shown({}, v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(text, testing::StartsWith("RUNNING\nstep 1/10  loss 1.0000"));
  EXPECT_THAT(text, testing::EndsWith("SUCCEEDED\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 7);
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace temper::command
