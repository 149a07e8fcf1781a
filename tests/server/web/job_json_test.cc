// SPDX-License-Identifier: Apache-2.0
#include "server/web/job_json.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace temper {
namespace {

TEST(MetricsJson, Columns_AreAsLongAsThereAreSteps) {
  v1::QueryMetricsResponse metrics;
  metrics.set_total_steps(20'000);
  for (int i = 1; i <= 2; ++i) {
    v1::StepMetrics& step = *metrics.add_steps();
    step.set_step(10'000 * i);
    step.set_loss(1.0 / 3);
    step.set_learning_rate(2e-5);
    step.mutable_phases()->set_forward(0.25);
  }
  metrics.mutable_steps(1)->set_loss(std::numeric_limits<double>::quiet_NaN());
  metrics.mutable_steps(1)->set_grad_norm(std::numeric_limits<double>::infinity());
  metrics.mutable_steps(1)->set_mfu(0.5);
  (*metrics.mutable_steps(0)->mutable_objective())["rewards/margins"] = 0.25;
  const auto json = nlohmann::json::parse(MetricsJson(metrics));
  EXPECT_EQ(json["step"], nlohmann::json({10'000, 20'000}));
  EXPECT_EQ(json["loss"], nlohmann::json({0.3333333, nullptr}));
  EXPECT_EQ(json["grad_norm"], nlohmann::json({0, nullptr}));
  EXPECT_EQ(json["learning_rate"], nlohmann::json({2e-5, 2e-5}));
  EXPECT_EQ(json["mfu"], nlohmann::json({nullptr, 0.5}));  // not known is not 0
  EXPECT_EQ(json["forward"], nlohmann::json({0.25, 0.25}));
  EXPECT_EQ(json["rewards/margins"], nlohmann::json({0.25, nullptr}));
  EXPECT_EQ(json["total_steps"], 20'000);
  for (const auto& [name, column] : json.items()) {
    if (name != "total_steps") EXPECT_EQ(column.size(), 2) << name;
  }
}

TEST(StepTimes, StepThatIsTakenAgain_ReplacesWhatCameAfterIt) {
  StepTimes times;
  for (int64_t step = 1; step <= 5; ++step) times.Add(step, static_cast<double>(step));
  times.Add(3, 10.5);
  EXPECT_EQ(times.Json(), R"({"step":[1,2,3],"seconds":[1.000,2.000,10.500]})");
}

TEST(StepTimes, Many_AreThinnedAndTheLastOneStays) {
  StepTimes times;
  for (int64_t step = 1; step <= 30'001; ++step) times.Add(step, 0);
  const auto json = nlohmann::json::parse(times.Json());
  EXPECT_LE(json["step"].size(), 10'000);
  EXPECT_EQ(json["step"].back(), 30'001);
}

TEST(Summary, HasNoDetails) {
  v1::Job job;
  job.set_name("jobs/a");
  job.set_state(v1::JOB_STATE_RUNNING);
  job.mutable_spec()->set_display_name("A");
  (*job.mutable_spec()->mutable_labels())["team"] = "x";
  job.mutable_spec()->mutable_model()->set_uri("/m");
  job.mutable_spec()->mutable_data()->set_uri("/secret/data");
  job.mutable_preflight()->add_samples()->add_pieces()->set_text("a sample");
  const std::string json = ToJson(Summary(job));
  const auto parsed = nlohmann::json::parse(json);
  EXPECT_EQ(parsed["spec"]["display_name"], "A");
  EXPECT_EQ(parsed["spec"]["labels"]["team"], "x");
  EXPECT_EQ(parsed["state"], "JOB_STATE_RUNNING");
  EXPECT_EQ(json.find("sample"), std::string::npos);
  EXPECT_EQ(json.find("/secret"), std::string::npos);
}

}  // namespace
}  // namespace temper
