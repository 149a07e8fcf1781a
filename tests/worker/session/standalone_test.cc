// SPDX-License-Identifier: Apache-2.0
#include "worker/session/standalone.h"

#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/common/scratch_directory.h"

namespace temper {
namespace {

using testing::HasSubstr;

constexpr char kJob[] = R"({"model": {"uri": "/m"}, "data": {"uri": "/d"}, "training": {"steps": 1},
                            "output": {"uri": "/o"}})";

class StandaloneTest : public testing::Test {
 protected:
  int Run(const std::string& job, const TrainFunction& train) {
    const std::string path = scratch_.path() / "job.json";
    std::ofstream(path) << job;
    return RunStandalone(path, "mine", train, out_, errors_);
  }

  const ScratchDirectory scratch_;
  std::ostringstream out_;
  std::ostringstream errors_;
};

absl::Status TrainOneStep(const TrainJob& job, TrainObserver& observer, const StopSignal&) {
  EXPECT_EQ(job.job_id, "mine");
  observer.OnPhase(TrainPhase::kTraining, 1);
  StepMetrics metrics;
  metrics.step = 1;
  metrics.loss = 0.5;
  observer.OnStep(metrics);
  observer.OnLog(LogSeverity::kInfo, "a remark");
  observer.OnExport({"/o/mine/export-e0001", 10, 3, "{}"});
  return absl::OkStatus();
}

TEST_F(StandaloneTest, RunStandalone_GoodJob_PrintsAnObjectALine) {
  EXPECT_EQ(Run(kJob, TrainOneStep), 0);
  std::istringstream lines(out_.str());
  std::vector<nlohmann::json> objects;
  for (std::string line; std::getline(lines, line);) objects.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(objects.size(), 3);
  EXPECT_EQ(objects[0]["phase"], "PHASE_TRAINING");
  EXPECT_EQ(objects[1]["step"], 1);
  EXPECT_EQ(objects[1]["loss"], 0.5);
  EXPECT_EQ(objects[2]["export"], "/o/mine/export-e0001");
  EXPECT_EQ(errors_.str(), "a remark\n");
}

TEST_F(StandaloneTest, RunStandalone_UnknownField_NamesFileAndField) {
  EXPECT_EQ(Run(R"({"training": {"stepz": 1}})", TrainOneStep), 1);
  EXPECT_THAT(errors_.str(), HasSubstr("USER_INPUT"));
  EXPECT_THAT(errors_.str(), HasSubstr("/job.json"));
  EXPECT_THAT(errors_.str(), HasSubstr("stepz"));
}

TEST_F(StandaloneTest, RunStandalone_NoSuchFile_SaysSo) {
  EXPECT_EQ(RunStandalone("/nonexistent/job.json", "mine", TrainOneStep, out_, errors_), 1);
  EXPECT_THAT(errors_.str(), HasSubstr("/nonexistent/job.json"));
}

TEST_F(StandaloneTest, RunStandalone_TrainingFails_SaysWhy) {
  const auto fail = [](const TrainJob&, TrainObserver&, const StopSignal&) {
    return absl::DataLossError("disk broken");
  };
  EXPECT_EQ(Run(kJob, fail), 1);
  EXPECT_EQ(errors_.str(), "temper-rank: STORAGE: disk broken\n");
}

}  // namespace
}  // namespace temper
