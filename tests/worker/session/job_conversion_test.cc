// SPDX-License-Identifier: Apache-2.0
#include "worker/session/job_conversion.h"

#include <functional>

#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"

namespace temper {
namespace {

using testing::HasSubstr;

v1::JobSpec Parse(const std::string& json) {
  v1::JobSpec spec;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &spec);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return spec;
}

v1::JobSpec Minimal() {
  return Parse(R"({"model": {"uri": "/m"}, "data": {"uri": "/d.jsonl"}, "training": {"steps": 7},
                   "output": {"uri": "/o"}})");
}

TEST(JobConversionTest, TrainJobFromSpec_Preference_HasTheDefaultsOfItsLoss) {
  v1::JobSpec spec = Minimal();
  EXPECT_FALSE(TrainJobFromSpec(spec, "jobs/abc", 1)->preference.has_value());
  v1::PreferenceOptimization& method = *spec.mutable_method()->mutable_preference();
  const auto options = [&] { return *TrainJobFromSpec(spec, "jobs/abc", 1)->preference; };
  EXPECT_EQ(options().loss, PreferenceLoss::kSigmoid);
  EXPECT_EQ(options().beta, 0.1);
  EXPECT_EQ(options().margin, 0);
  method.set_loss(v1::PreferenceOptimization::LOSS_SIMPO);
  EXPECT_EQ(options().beta, 2);
  EXPECT_EQ(options().margin, 1);
  method.set_margin(0);
  EXPECT_EQ(options().margin, 0);
  method.set_loss(v1::PreferenceOptimization::LOSS_HINGE);
  method.set_beta(0.5);
  method.set_length_normalized(true);
  EXPECT_EQ(options().loss, PreferenceLoss::kHinge);
  EXPECT_EQ(options().beta, 0.5);
  EXPECT_TRUE(options().length_normalized);
}

TEST(JobConversionTest, TrainJobFromSpec_Distillation_IsTaken) {
  v1::JobSpec spec = Minimal();
  v1::Distillation& method = *spec.mutable_method()->mutable_distillation();
  const auto options = [&] { return *TrainJobFromSpec(spec, "jobs/abc", 1)->distillation; };
  EXPECT_EQ(options().teacher, "");
  method.set_teacher("/t");
  EXPECT_EQ(options().teacher, "/t");
  EXPECT_EQ(options().divergence.kind, ops::DivergenceKind::kForwardKl);
  EXPECT_EQ(options().divergence.temperature, 1);
  EXPECT_EQ(options().sft_weight, 0);
  method.set_divergence(v1::Distillation::DIVERGENCE_REVERSE_KL);
  EXPECT_EQ(options().divergence.kind, ops::DivergenceKind::kReverseKl);
  method.set_divergence(v1::Distillation::DIVERGENCE_JSD);
  EXPECT_EQ(options().divergence.teacher_weight, 0.5);
  method.set_teacher_weight(0.25);
  method.set_temperature(2);
  method.set_sft_weight(0.1);
  EXPECT_EQ(options().divergence.kind, ops::DivergenceKind::kJsd);
  EXPECT_EQ(options().divergence.teacher_weight, 0.25);
  EXPECT_EQ(options().divergence.temperature, 2);
  EXPECT_EQ(options().sft_weight, 0.1);
}

TEST(JobConversionTest, TrainJobFromSpec_Reward_LeavesOutWhatIsTooLong) {
  v1::JobSpec spec = Minimal();
  spec.mutable_method()->mutable_reward()->set_centering(0.01);
  const auto job = TrainJobFromSpec(spec, "jobs/abc", 1);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->reward->centering, 0.01);
  EXPECT_TRUE(job->pairs());
  EXPECT_EQ(job->data.overlong, OverlongPolicy::kDrop);
  EXPECT_EQ(job->training.learning_rate, 1e-5);
  spec.mutable_data()->set_overlong(v1::DataSource::OVERLONG_TRUNCATE);
  spec.mutable_lora();
  EXPECT_EQ(TrainJobFromSpec(spec, "jobs/abc", 1)->data.overlong, OverlongPolicy::kTruncate);
  EXPECT_EQ(TrainJobFromSpec(spec, "jobs/abc", 1)->training.learning_rate, 1e-4);
}

TEST(JobConversionTest, TrainJobFromSpec_MinimalJob_TakesEveryDefault) {
  const auto job = TrainJobFromSpec(Minimal(), "jobs/abc", 3);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->job_id, "abc");
  EXPECT_EQ(job->epoch, 3);
  EXPECT_EQ(job->model_uri, "/m");
  ASSERT_EQ(job->data.sources.size(), 1);
  EXPECT_EQ(job->data.sources[0].uri, "/d.jsonl");
  EXPECT_EQ(job->data.max_sample_tokens, 0);
  EXPECT_EQ(job->data.overlong, OverlongPolicy::kTruncate);
  EXPECT_EQ(job->data.train_on, TrainOn::kDefault);
  EXPECT_TRUE(job->data.sources[0].columns.empty());
  EXPECT_FALSE(job->lora.has_value());
  EXPECT_EQ(job->output.adapters, AdapterExport::kAdapter);
  EXPECT_EQ(job->output.adapter_format, AdapterFormat::kPeft);
  EXPECT_EQ(job->training.steps, 7);
  EXPECT_EQ(job->training.epochs, 0);
  EXPECT_EQ(job->training.tokens_per_step, 4096);
  EXPECT_EQ(job->training.micro_batch_tokens, 2048);
  EXPECT_EQ(job->training.learning_rate, 2e-5);
  EXPECT_EQ(job->training.schedule, LearningRateSchedule::kCosine);
  EXPECT_FALSE(job->training.warmup_steps.has_value());
  EXPECT_EQ(job->training.final_learning_rate_ratio, 0);
  EXPECT_EQ(job->training.adamw.beta1, 0.9);
  EXPECT_EQ(job->training.adamw.beta2, 0.999);
  EXPECT_EQ(job->training.adamw.epsilon, 1e-8);
  EXPECT_EQ(job->training.adamw.weight_decay, 0);
  EXPECT_EQ(job->training.max_grad_norm, 1);
  EXPECT_EQ(job->training.seed, 0);
  EXPECT_EQ(job->training.precision, Precision::kAuto);
  EXPECT_EQ(job->training.recompute, RecomputePolicy::kAuto);
  EXPECT_EQ(job->output.uri, "/o");
  EXPECT_EQ(job->output.max_shard_size, 5'000'000'000);
  EXPECT_EQ(job->threads, 0);
}

TEST(JobConversionTest, TrainJobFromSpec_EveryFieldGiven_IsTaken) {
  const auto job = TrainJobFromSpec(Parse(R"({
    "model": {"uri": "/m"},
    "data": {"uri": "/d.jsonl", "max_sample_tokens": 100, "overlong": "OVERLONG_DROP",
             "train_on": "TRAIN_ON_LAST_TURN", "columns": {"messages": "chat", "tools": "functions"}},
    "lora": {"rank": 4, "alpha": 3.5, "targets": ["q_proj", "v_proj"], "rslora": true, "dora": true, "dropout": 0.25,
             "modules_to_save": ["lm_head"]},
    "training": {"epochs": 1.5, "tokens_per_step": 64, "micro_batch_tokens": 32, "learning_rate": 0.5,
                 "schedule": "SCHEDULE_LINEAR", "warmup_steps": 0, "final_learning_rate_ratio": 0.25,
                 "adamw": {"beta1": 0, "beta2": 0.5, "epsilon": 1e-3, "weight_decay": 0.1},
                 "max_grad_norm": 0, "seed": 9, "precision": "PRECISION_BF16", "recompute": "RECOMPUTE_ATTENTION"},
    "resources": {"threads_per_rank": 2},
    "output": {"uri": "/o", "max_shard_size": 2000000, "adapters": "ADAPTERS_BOTH",
               "adapter_format": "ADAPTER_FORMAT_VLLM"}})"),
                                    "jobs/abc", 1);
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_EQ(job->data.sources.size(), 1);
  EXPECT_EQ(job->data.max_sample_tokens, 100);
  EXPECT_EQ(job->data.overlong, OverlongPolicy::kDrop);
  EXPECT_EQ(job->data.train_on, TrainOn::kLastTurn);
  EXPECT_THAT(job->data.sources[0].columns,
              testing::ElementsAre(testing::Pair("messages", "chat"), testing::Pair("tools", "functions")));
  ASSERT_TRUE(job->lora.has_value());
  EXPECT_EQ(job->lora->rank, 4);
  EXPECT_EQ(job->lora->alpha, 3.5);
  EXPECT_THAT(job->lora->targets, testing::ElementsAre("q_proj", "v_proj"));
  EXPECT_TRUE(job->lora->rslora);
  EXPECT_TRUE(job->lora->dora);
  EXPECT_EQ(job->lora->dropout, 0.25);
  EXPECT_THAT(job->lora->modules_to_save, testing::ElementsAre("lm_head"));
  EXPECT_EQ(job->output.adapters, AdapterExport::kBoth);
  EXPECT_EQ(job->output.adapter_format, AdapterFormat::kVllm);
  EXPECT_EQ(job->training.steps, 0);
  EXPECT_EQ(job->training.epochs, 1.5);
  EXPECT_EQ(job->training.tokens_per_step, 64);
  EXPECT_EQ(job->training.micro_batch_tokens, 32);
  EXPECT_EQ(job->training.learning_rate, 0.5);
  EXPECT_EQ(job->training.schedule, LearningRateSchedule::kLinear);
  EXPECT_EQ(job->training.warmup_steps, 0);
  EXPECT_EQ(job->training.final_learning_rate_ratio, 0.25);
  EXPECT_EQ(job->training.adamw.beta1, 0);
  EXPECT_EQ(job->training.adamw.beta2, 0.5);
  EXPECT_EQ(job->training.adamw.epsilon, 1e-3);
  EXPECT_EQ(job->training.adamw.weight_decay, 0.1);
  EXPECT_EQ(job->training.max_grad_norm, 0);
  EXPECT_EQ(job->training.seed, 9);
  EXPECT_EQ(job->training.precision, Precision::kBf16);
  EXPECT_EQ(job->training.recompute, RecomputePolicy::kAttention);
  EXPECT_EQ(job->output.max_shard_size, 2'000'000);
  EXPECT_EQ(job->threads, 2);
}

TEST(JobConversionTest, TrainJobFromSpec_TrainOn_EachValueIsItself) {
  v1::JobSpec spec = Minimal();
  for (const auto& [value, expected] : {std::pair{v1::DataSource::TRAIN_ON_ASSISTANT, TrainOn::kAssistant},
                                        {v1::DataSource::TRAIN_ON_COMPLETION, TrainOn::kCompletion},
                                        {v1::DataSource::TRAIN_ON_ALL, TrainOn::kAll},
                                        {v1::DataSource::TRAIN_ON_LAST_TURN, TrainOn::kLastTurn}}) {
    spec.mutable_data()->set_train_on(value);
    EXPECT_EQ(TrainJobFromSpec(spec, "a", 1)->data.train_on, expected);
  }
}

TEST(JobConversionTest, TrainJobFromSpec_Sources_HaveTheirWeightsAndColumns) {
  v1::JobSpec spec = Minimal();
  *spec.mutable_data() = Parse(R"({"data": {
    "columns": {"messages": "chat"},
    "sources": [{"uri": "/a", "weight": 2.5, "columns": {"text": "body"}}, {"uri": "/b"}, {"uri": "/c", "weight": 0}]}})")
                             .data();
  const auto job = TrainJobFromSpec(spec, "a", 1);
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_EQ(job->data.sources.size(), 3);
  EXPECT_EQ(job->data.sources[0].uri, "/a");
  EXPECT_EQ(job->data.sources[0].weight, 2.5);
  EXPECT_THAT(job->data.sources[0].columns, testing::ElementsAre(testing::Pair("text", "body")));
  EXPECT_EQ(job->data.sources[1].weight, 1);
  EXPECT_THAT(job->data.sources[1].columns, testing::ElementsAre(testing::Pair("messages", "chat")));
  EXPECT_EQ(job->data.sources[2].weight, 0);
}

TEST(JobConversionTest, TrainJobFromSpec_Schedule_EachValueIsItself) {
  v1::JobSpec spec = Minimal();
  for (const auto& [value, expected] : {std::pair{v1::Training::SCHEDULE_CONSTANT, LearningRateSchedule::kConstant},
                                        {v1::Training::SCHEDULE_LINEAR, LearningRateSchedule::kLinear},
                                        {v1::Training::SCHEDULE_COSINE, LearningRateSchedule::kCosine},
                                        {v1::Training::SCHEDULE_WSD, LearningRateSchedule::kWarmupStableDecay}}) {
    spec.mutable_training()->set_schedule(value);
    EXPECT_EQ(TrainJobFromSpec(spec, "a", 1)->training.schedule, expected);
  }
  EXPECT_EQ(TrainJobFromSpec(spec, "a", 1)->training.decay_ratio, 0.2);
  spec.mutable_training()->set_decay_ratio(0.5);
  EXPECT_EQ(TrainJobFromSpec(spec, "a", 1)->training.decay_ratio, 0.5);
}

TEST(JobConversionTest, TrainJobFromSpec_Checkpoints_ByStepsOrByTimeOrBoth) {
  const auto options = [](const std::string& checkpoints) {
    v1::JobSpec spec = Minimal();
    if (!checkpoints.empty()) *spec.mutable_checkpoints() = Parse(checkpoints).checkpoints();
    return TrainJobFromSpec(spec, "a", 1)->checkpoint_options;
  };
  EXPECT_EQ(options("").every_steps, 0);
  EXPECT_EQ(options("").every_minutes, 15);
  EXPECT_EQ(options("").keep_last, 2);
  EXPECT_EQ(options(R"({"checkpoints": {"every_steps": 5}})").every_steps, 5);
  EXPECT_EQ(options(R"({"checkpoints": {"every_steps": 5}})").every_minutes, 0);
  EXPECT_EQ(options(R"({"checkpoints": {"every_steps": 5, "every_minutes": 0.5}})").every_minutes, 0.5);
  EXPECT_EQ(options(R"({"checkpoints": {"every_minutes": 0, "keep_last": 3}})").every_minutes, 0);
  EXPECT_EQ(options(R"({"checkpoints": {"every_minutes": 0, "keep_last": 3}})").keep_last, 3);
}

TEST(JobConversionTest, TrainJobFromSpec_DefaultsThatDependOnOtherFields) {
  v1::JobSpec spec = Minimal();
  spec.mutable_training()->set_tokens_per_step(512);
  EXPECT_EQ(TrainJobFromSpec(spec, "a", 1)->training.micro_batch_tokens, 512);

  spec = Minimal();
  spec.mutable_lora();
  const auto job = TrainJobFromSpec(spec, "a", 1);
  EXPECT_EQ(job->training.learning_rate, 2e-4);
  EXPECT_EQ(job->lora->rank, 16);
  EXPECT_EQ(job->lora->alpha, 32);
  EXPECT_THAT(job->lora->targets, testing::ElementsAre("all-linear"));

  spec.mutable_lora()->set_rank(8);
  EXPECT_EQ(TrainJobFromSpec(spec, "a", 1)->lora->alpha, 16);

  spec.mutable_lora()->Clear();
  spec.mutable_lora()->set_adapter("/adapter");
  spec.mutable_lora()->set_dropout(0.5);
  EXPECT_EQ(TrainJobFromSpec(spec, "a", 1)->lora->adapter, "/adapter");
  EXPECT_EQ(TrainJobFromSpec(spec, "a", 1)->lora->dropout, 0.5);
}

TEST(JobConversionTest, TrainJobFromSpec_RequiredFieldMissing_IsNamed) {
  const struct {
    std::function<void(v1::JobSpec&)> remove;
    const char* field;
  } cases[] = {
      {[](v1::JobSpec& spec) { spec.clear_model(); }, "model.uri"},
      {[](v1::JobSpec& spec) { spec.clear_data(); }, "data.uri"},
      {[](v1::JobSpec& spec) { spec.clear_output(); }, "output.uri"},
      {[](v1::JobSpec& spec) { spec.clear_training(); }, "training.steps"},
  };
  for (const auto& test : cases) {
    v1::JobSpec spec = Minimal();
    test.remove(spec);
    const absl::Status status = TrainJobFromSpec(spec, "a", 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.field));
  }
}

TEST(JobConversionTest, TrainJobFromSpec_EnumValueOfANewerVersion_IsRefused) {
  v1::JobSpec spec = Minimal();
  spec.mutable_training()->set_schedule(static_cast<v1::Training::Schedule>(99));
  EXPECT_THAT(std::string(TrainJobFromSpec(spec, "a", 1).status().message()), HasSubstr("training.schedule"));
  spec = Minimal();
  spec.mutable_training()->set_precision(static_cast<v1::Training::Precision>(99));
  EXPECT_THAT(std::string(TrainJobFromSpec(spec, "a", 1).status().message()), HasSubstr("training.precision"));
  spec.mutable_training()->clear_precision();
  spec.mutable_training()->set_recompute(static_cast<v1::Training::Recompute>(99));
  EXPECT_THAT(std::string(TrainJobFromSpec(spec, "a", 1).status().message()), HasSubstr("training.recompute"));
  spec = Minimal();
  spec.mutable_data()->set_overlong(static_cast<v1::DataSource::Overlong>(99));
  EXPECT_THAT(std::string(TrainJobFromSpec(spec, "a", 1).status().message()), HasSubstr("data.overlong"));
  spec = Minimal();
  spec.mutable_data()->set_train_on(static_cast<v1::DataSource::TrainOn>(99));
  EXPECT_THAT(std::string(TrainJobFromSpec(spec, "a", 1).status().message()), HasSubstr("data.train_on"));
}

}  // namespace
}  // namespace temper
