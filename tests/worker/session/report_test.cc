// SPDX-License-Identifier: Apache-2.0
#include "worker/session/report.h"

#include "gtest/gtest.h"

namespace temper {
namespace {

TEST(ReportTest, ToProto_EveryCause_HasTheSameName) {
  for (int i = 0; i <= static_cast<int>(FailureCause::kInternal); ++i) {
    const auto cause = static_cast<FailureCause>(i);
    const std::string name = cause == FailureCause::kNone ? "UNSPECIFIED" : std::string(FailureCauseName(cause));
    EXPECT_EQ(v1::FailureCause_Name(ToProto(cause)), "FAILURE_CAUSE_" + name);
  }
}

TEST(ReportTest, StepReport_EveryField_IsTaken) {
  StepMetrics metrics;
  metrics.step = 1;
  metrics.total_steps = 2;
  metrics.loss = 3;
  metrics.grad_norm = 4;
  metrics.learning_rate = 5;
  metrics.tokens = 6;
  metrics.scored_tokens = 7;
  metrics.total_tokens = 8;
  metrics.padding_ratio = 9;
  metrics.seconds = 10;
  metrics.mfu = 11;
  metrics.hfu = 12;
  metrics.peak_memory_bytes = 13;
  metrics.sent_bytes = 14;
  metrics.epoch = 14;
  metrics.objective = {{"rewards/margins", 15}};
  const v1::StepMetrics step = StepReport(metrics).step();
  EXPECT_EQ(step.step(), 1);
  EXPECT_EQ(step.total_steps(), 2);
  EXPECT_EQ(step.loss(), 3);
  EXPECT_EQ(step.grad_norm(), 4);
  EXPECT_EQ(step.learning_rate(), 5);
  EXPECT_EQ(step.tokens(), 6);
  EXPECT_EQ(step.scored_tokens(), 7);
  EXPECT_EQ(step.total_tokens(), 8);
  EXPECT_EQ(step.padding_ratio(), 9);
  EXPECT_EQ(step.seconds(), 10);
  EXPECT_EQ(step.mfu(), 11);
  EXPECT_EQ(step.hfu(), 12);
  EXPECT_EQ(step.peak_memory_bytes(), 13);
  EXPECT_EQ(step.sent_bytes(), 14);
  EXPECT_EQ(step.epoch(), 14);
  EXPECT_EQ(step.objective().at("rewards/margins"), 15);
}

TEST(ReportTest, PhaseReport_EveryPhase_HasItsOwnValue) {
  const std::pair<TrainPhase, v1::Phase> phases[] = {{TrainPhase::kPreparingData, v1::PHASE_PREPARING_DATA},
                                                     {TrainPhase::kLoadingModel, v1::PHASE_LOADING_MODEL},
                                                     {TrainPhase::kTraining, v1::PHASE_TRAINING},
                                                     {TrainPhase::kExporting, v1::PHASE_EXPORTING},
                                                     {TrainPhase::kVerifying, v1::PHASE_VERIFYING}};
  for (const auto& [phase, expected] : phases) EXPECT_EQ(PhaseReport(phase, 5).phase().phase(), expected);
  EXPECT_EQ(PhaseReport(TrainPhase::kTraining, 5).phase().total_steps(), 5);
}

TEST(ReportTest, LogReport_BytesThatAreNotUtf8_CanStillBeParsed) {
  const v1::RankReport report = LogReport(LogSeverity::kWarning, "line \xFF");
  v1::RankReport parsed;
  EXPECT_TRUE(parsed.ParseFromString(report.SerializeAsString()));
  EXPECT_EQ(parsed.log().severity(), v1::LOG_SEVERITY_WARNING);
  EXPECT_EQ(parsed.log().text(), "line \xEF\xBF\xBD");
}

TEST(ReportTest, EndReport_Status_BecomesCauseAndMessage) {
  v1::RankEnd end = EndReport(absl::OkStatus()).end();
  EXPECT_EQ(end.cause(), v1::FAILURE_CAUSE_UNSPECIFIED);
  EXPECT_FALSE(end.stopped());

  end = EndReport(absl::CancelledError("cancelled by the user")).end();
  EXPECT_EQ(end.cause(), v1::FAILURE_CAUSE_UNSPECIFIED);
  EXPECT_TRUE(end.stopped());
  EXPECT_EQ(end.message(), "cancelled by the user");

  end = EndReport(WithCause(absl::InternalError("loss is NaN"), FailureCause::kNumerics)).end();
  EXPECT_EQ(end.cause(), v1::FAILURE_CAUSE_NUMERICS);
  EXPECT_FALSE(end.stopped());
  EXPECT_EQ(end.message(), "loss is NaN");

  EXPECT_EQ(EndReport(absl::NotFoundError("no model")).end().cause(), v1::FAILURE_CAUSE_USER_INPUT);
}

}  // namespace
}  // namespace temper
